output "hub_stream_arn" {
  description = "The region's hub: producers and consumers use it as ever."
  value       = module.replicator.hub_stream_arn
}

output "lease_table_arn" {
  description = "Leases and checkpoints of this region."
  value       = module.replicator.lease_table_arn
}

output "log_group_name" {
  description = "The workers' logs."
  value       = module.replicator.log_group_name
}

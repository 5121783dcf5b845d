output "lease_table_arn" {
  description = "Table of leases and checkpoints."
  value       = aws_dynamodb_table.leases.arn
}

output "lease_table_name" {
  description = "Name of the lease table, which the configuration must name (REPLICATOR_LEASE_TABLE holds it)."
  value       = aws_dynamodb_table.leases.name
}

output "hub_stream_arn" {
  description = "The hub stream made here, or null. It belongs into the peers' sink_stream_arns."
  value       = one(aws_kinesis_stream.hub[*].arn)
}

output "task_role_arn" {
  description = "The workers' role; peers in other accounts allow it in their streams' policies."
  value       = aws_iam_role.task.arn
}

output "execution_role_arn" {
  description = "The role by which ECS starts the workers."
  value       = aws_iam_role.execution.arn
}

output "ecs_cluster_arn" {
  description = "The cluster the service runs in."
  value       = local.ecs_cluster_arn
}

output "ecs_service_name" {
  description = "The service, for scaling and deployments."
  value       = aws_ecs_service.workers.name
}

output "log_group_name" {
  description = "Where the workers' JSON logs are."
  value       = aws_cloudwatch_log_group.workers.name
}

output "security_group_id" {
  description = "The workers' security group, to be let in by an existing Redis, or opened for a scraper."
  value       = aws_security_group.workers.id
}

output "redis_url" {
  description = "URL of Redis, made here or given."
  value       = local.redis_url
}

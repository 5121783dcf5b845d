# State that outlives workers: the lease table and the hub. And the configuration, which they read at start.

data "aws_region" "current" {}
data "aws_partition" "current" {}
data "aws_caller_identity" "current" {}

locals {
  tags        = merge({ application = var.name }, var.tags)
  source_arns = distinct(concat(var.source_stream_arns, aws_kinesis_stream.hub[*].arn))
  # Events of tables, queues and streams of change records are written into the region's own hub.
  fills_hub         = length(var.table_arns) + length(var.queue_arns) + length(var.cdc_stream_arns) > 0
  sink_arns         = distinct(concat(var.sink_stream_arns, local.fills_hub ? local.source_arns : []))
  config_is_big     = length(base64encode(var.config_yaml)) * 3 / 4 > 4096
  lease_table_name  = coalesce(var.lease_table_name, "${var.name}-leases")
  name_with_region  = "${var.name}-${var.region}"
  is_cluster_own    = var.ecs_cluster_arn == null
  ecs_cluster_arn   = local.is_cluster_own ? aws_ecs_cluster.this[0].arn : var.ecs_cluster_arn
  redis_url         = var.create_redis ? local.created_redis_url : var.redis_url
  redis_secret      = var.redis_auth_secret_arn == null ? {} : { REDIS_PASSWORD = var.redis_auth_secret_arn }
  container_secrets = merge(var.secrets, local.redis_secret)
}

resource "aws_dynamodb_table" "leases" {
  name         = local.lease_table_name
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "pk"
  range_key    = "sk"
  tags         = local.tags

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = var.kms.lease_table
  }

  lifecycle {
    # With the checkpoints goes the knowledge of what was replicated. To remove a deployment for good, take the
    # table out of the state first (README).
    prevent_destroy = true

    precondition {
      condition     = data.aws_region.current.id == var.region
      error_message = "The provider is configured for ${data.aws_region.current.id}, but region is ${var.region}."
    }
  }
}

resource "aws_kinesis_stream" "hub" {
  count = var.hub_stream == null ? 0 : 1

  name             = var.hub_stream.name
  shard_count      = var.hub_stream.shard_count
  retention_period = var.hub_stream.retention_h
  encryption_type  = "KMS"
  kms_key_id       = coalesce(var.kms.hub_stream, "alias/aws/kinesis")
  tags             = local.tags

  lifecycle {
    # A stream made anew is another incarnation: its events are gone, and every link starts over.
    prevent_destroy = true
  }
}

resource "aws_ssm_parameter" "config" {
  name        = "/${var.name}/config"
  description = "Configuration of replicator."
  type        = "String"
  tier        = local.config_is_big ? "Advanced" : "Standard"
  value       = var.config_yaml
  tags        = local.tags

  lifecycle {
    precondition {
      condition     = try(contains(keys(yamldecode(var.config_yaml).regions), var.region), contains(yamldecode(var.config_yaml).regions[*].name, var.region), false)
      error_message = "The configuration names no region ${var.region}."
    }
  }
}

resource "aws_cloudwatch_log_group" "workers" {
  name              = "/ecs/${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms.logs
  tags              = local.tags
}

# --- what runs ----------------------------------------------------------------------------------------------------

variable "name" {
  description = "Prefix of every resource's name. The same name in every region makes a deployment recognisable."
  type        = string
  default     = "replicator"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,27}[a-z0-9]$", var.name))
    error_message = "The name must be 2 to 29 lower-case letters, digits and hyphens, and start with a letter."
  }
}

variable "region" {
  description = "The region this deployment serves, by its canonical name. It must be the provider's region."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "The region must be a canonical name such as us-east-1; aliases are refused."
  }
}

variable "image" {
  description = "Container image of replicator, with a tag or, better, a digest."
  type        = string

  validation {
    condition     = can(regex("[:@][A-Za-z0-9_][A-Za-z0-9_.:-]*$", var.image)) && !can(regex(":latest$", var.image))
    error_message = "The image needs a tag or a digest, and not the tag latest: a restart must never change the version."
  }
}

variable "config_yaml" {
  description = "The configuration file, the same for all regions. It holds no secrets: those come through secrets."
  type        = string

  validation {
    condition     = can(keys(yamldecode(var.config_yaml)))
    error_message = "The configuration must be a YAML mapping; `replicator config check FILE` tells where it is not."
  }

  validation {
    # An advanced parameter holds 8 KB. Base64 makes 4 characters of 3 bytes, so this counts bytes, not characters.
    condition     = length(base64encode(var.config_yaml)) * 3 / 4 <= 8192
    error_message = "The configuration is larger than the 8 KB that an SSM parameter holds."
  }
}

variable "desired_count" {
  description = "Number of workers. They share the shards; two or more survive the loss of an availability zone."
  type        = number
  default     = 2

  validation {
    condition     = var.desired_count >= 0 && floor(var.desired_count) == var.desired_count
    error_message = "The number of workers must be a whole number, 0 or more."
  }
}

variable "cpu" {
  description = "CPU units of a worker (1024 is one core). A worker is one process and uses no more than one core."
  type        = number
  default     = 1024

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096], var.cpu)
    error_message = "Fargate takes 256, 512, 1024, 2048 or 4096 CPU units."
  }
}

variable "memory_mib" {
  description = "Memory of a worker in MiB. Fargate takes 2 to 8 GiB with one core."
  type        = number
  default     = 2048

  validation {
    condition     = var.memory_mib >= 512 && var.memory_mib <= 30720
    error_message = "Fargate takes 512 to 30720 MiB."
  }
}

variable "stop_timeout_s" {
  description = "How long ECS waits between SIGTERM and SIGKILL. At least the configuration's drain budget and 10 s more."
  type        = number
  default     = 60

  validation {
    condition     = var.stop_timeout_s >= 15 && var.stop_timeout_s <= 120
    error_message = "Fargate waits 120 s at most; under 15 s a worker can't release its leases in an orderly way."
  }
}

variable "minimum_healthy_percent" {
  description = "Lower bound of running workers during a deployment, in percent of desired_count."
  type        = number
  default     = 100
}

variable "maximum_percent" {
  description = "Upper bound of running workers during a deployment, in percent of desired_count."
  type        = number
  default     = 200
}

variable "status_port" {
  description = "Port of /healthz, /readyz, /metrics and /status inside the task; given to it as REPLICATOR_STATUS_PORT."
  type        = number
  default     = 8080

  validation {
    condition     = var.status_port > 1023 && var.status_port < 65536
    error_message = "The status port must be between 1024 and 65535: the worker does not run as root."
  }
}

variable "environment" {
  description = "Further environment variables that the configuration refers to as $${NAME}. No secrets."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name in keys(var.environment) : can(regex("^[A-Z][A-Z0-9_]*$", name))])
    error_message = "Names of environment variables are upper-case letters, digits and underscores."
  }
}

variable "secrets" {
  description = "Secrets that the configuration refers to as $${NAME}: name to ARN in Secrets Manager (with `:key::` behind it for one key of a JSON secret)."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for arn in values(var.secrets) : can(regex("^arn:[a-z-]+:secretsmanager:[^:]+:[0-9]{12}:secret:[^:*]+(:[^:]*:[^:]*:[^:]*)?$", arn))])
    error_message = "Each secret is the full ARN of a secret in Secrets Manager, without wildcards."
  }
}

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1827, 3653], var.log_retention_days)
    error_message = "CloudWatch Logs takes 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1827 or 3653 days."
  }
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
  default     = {}
  nullable    = false
}

# --- where it runs ------------------------------------------------------------------------------------------------

variable "vpc_id" {
  description = "VPC of the workers."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets of the workers, in two availability zones or more. They need a way to the peers' endpoints (NAT, or public subnets)."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "At least one subnet is needed."
  }
}

variable "assign_public_ip" {
  description = "Whether workers get public addresses; needed in public subnets without NAT."
  type        = bool
  default     = false
}

variable "ecs_cluster_arn" {
  description = "An existing ECS cluster; null makes one."
  type        = string
  default     = null
}

variable "ecr_repository_arn" {
  description = "The ECR repository of the image, to be allowed to pull from it; null for a public image."
  type        = string
  default     = null
}

# --- what it reads and writes -------------------------------------------------------------------------------------

variable "hub_stream" {
  description = "The region's hub as a Kinesis stream to be made here; null when it exists. Provisioned shards, because on-demand streams need a newer provider than 3.39: bring such a stream by source_stream_arns."
  type = object({
    name        = string
    shard_count = number
    retention_h = optional(number, 168)
  })
  default = null

  validation {
    condition     = try(var.hub_stream.shard_count >= 1 && var.hub_stream.retention_h >= 24 && var.hub_stream.retention_h <= 8760, var.hub_stream == null)
    error_message = "A hub stream has at least 1 shard, and retention_h between 24 and 8760."
  }
}

variable "source_stream_arns" {
  description = "Kinesis streams of this region that workers read, besides hub_stream."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.source_stream_arns : can(regex("^arn:[a-z-]+:kinesis:[a-z0-9-]+:[0-9]{12}:stream/[A-Za-z0-9_.-]+$", arn))])
    error_message = "Sources are ARNs of Kinesis streams, without wildcards."
  }
}

variable "cdc_stream_arns" {
  description = "Kinesis streams of this region that others fill with change records (sources of kind cdc): only read. Their events go into the region's own hub, so workers may write it then. Their KMS keys belong into kms.sources."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.cdc_stream_arns : can(regex("^arn:[a-z-]+:kinesis:[a-z0-9-]+:[0-9]{12}:stream/[A-Za-z0-9_.-]+$", arn))])
    error_message = "Streams of change records are ARNs of Kinesis streams, without wildcards."
  }
}

variable "sink_stream_arns" {
  description = "Kinesis streams of the peer regions that workers write to, and read back when a publish is in doubt."
  type        = list(string)
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.sink_stream_arns : can(regex("^arn:[a-z-]+:kinesis:[a-z0-9-]+:[0-9]{12}:stream/[A-Za-z0-9_.-]+$", arn))])
    error_message = "Sinks are ARNs of Kinesis streams, without wildcards."
  }
}

variable "table_arns" {
  description = "DynamoDB tables of this region whose changes are replicated (sources of kind dynamodb). Their events go into the region's own hub, so workers may write it then. Their KMS keys belong into kms.sources."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.table_arns : can(regex("^arn:[a-z-]+:dynamodb:[a-z0-9-]+:[0-9]{12}:table/[A-Za-z0-9_.-]+$", arn))])
    error_message = "Tables are ARNs of DynamoDB tables, without wildcards."
  }
}

variable "queue_arns" {
  description = "SQS queues of this region whose messages are replicated (sources of kind sqs; of a bus, the queue its rule sends to). Their events go into the region's own hub, so workers may write it then. Their KMS keys belong into kms.sources."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.queue_arns : can(regex("^arn:[a-z-]+:sqs:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]+(\\.fifo)?$", arn))])
    error_message = "Queues are ARNs of SQS queues, without wildcards."
  }
}

variable "sink_queue_arns" {
  description = "SQS queues of the peer regions that workers send to (sinks of kind sqs). Their KMS keys belong into kms.sinks."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.sink_queue_arns : can(regex("^arn:[a-z-]+:sqs:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]+(\\.fifo)?$", arn))])
    error_message = "Queues are ARNs of SQS queues, without wildcards."
  }
}

variable "sink_bus_arns" {
  description = "Event buses of the peer regions that workers put to (sinks of kind eventbridge)."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.sink_bus_arns : can(regex("^arn:[a-z-]+:events:[a-z0-9-]+:[0-9]{12}:event-bus/[A-Za-z0-9._/-]+$", arn))])
    error_message = "Buses are ARNs of EventBridge's event buses, without wildcards."
  }
}

variable "sink_table_arns" {
  description = "DynamoDB tables of the peer regions that workers write (sinks of kind dynamodb). Their KMS keys belong into kms.sink_tables."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.sink_table_arns : can(regex("^arn:[a-z-]+:dynamodb:[a-z0-9-]+:[0-9]{12}:table/[A-Za-z0-9_.-]+$", arn))])
    error_message = "Tables to be written are ARNs of DynamoDB tables, without wildcards."
  }
}

variable "lease_table_name" {
  description = "Name of the table of leases and checkpoints; null means `<name>-leases`. Given to the workers as REPLICATOR_LEASE_TABLE."
  type        = string
  default     = null
}

variable "quarantine_s3" {
  description = "Where poison events go: bucket and key prefix (ending in a slash). Given to the workers as REPLICATOR_QUARANTINE_BUCKET and REPLICATOR_QUARANTINE_PREFIX. The lake's bucket with a prefix of its own where the configuration has `quarantine.lake`. Null only when the configuration names another bucket: the container has no place that can be written, and a poison event that can't be put away holds up its shard."
  type = object({
    bucket = string
    prefix = string
  })
  default = null

  validation {
    condition     = can(regex("^[^*?]+/$", var.quarantine_s3.prefix)) || var.quarantine_s3 == null
    error_message = "The prefix must end in a slash and hold no wildcards."
  }
}

variable "quarantine_queue_arn" {
  description = "ARN of the standard queue of this region that gets poison events as messages, where the configuration has `quarantine.queue`; what no message can hold goes to `quarantine_s3`. Its name is given to the workers as REPLICATOR_QUARANTINE_QUEUE."
  type        = string
  default     = null

  validation {
    condition     = can(regex("^arn:[a-z-]+:sqs:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,80}$", var.quarantine_queue_arn)) || var.quarantine_queue_arn == null
    error_message = "The quarantine's queue is the ARN of a standard SQS queue, without wildcards."
  }
}

variable "lake_s3" {
  description = "The event lake of this region, where the configuration has one: bucket and key prefix (ending in a slash). Given to the workers as REPLICATOR_LAKE_BUCKET and REPLICATOR_LAKE_PREFIX. is_read: a source names it as continue_from, so the workers read it too."
  type = object({
    bucket  = string
    prefix  = string
    is_read = optional(bool, false)
  })
  default = null

  validation {
    condition     = can(regex("^[^*?]+/$", var.lake_s3.prefix)) || var.lake_s3 == null
    error_message = "The lake's prefix must end in a slash and hold no wildcards."
  }
}

variable "claim_check_s3" {
  description = "Where bodies of events go that are too large for sinks with claim_check: buckets of the peer regions, each with a key prefix (ending in a slash)."
  type = list(object({
    bucket = string
    prefix = string
  }))
  default  = []
  nullable = false

  validation {
    condition     = alltrue([for place in var.claim_check_s3 : can(regex("^[^*?]+/$", place.prefix))])
    error_message = "The prefixes of claim checks must end in a slash and hold no wildcards."
  }
}

variable "kms" {
  description = "ARNs of customer-managed keys, where there are some: of the lease table, the hub stream made here, all source and sink streams and queues, tables that are written, the quarantine bucket, the quarantine's queue, the lake's bucket, buckets of claim checks, the secrets, the logs."
  type = object({
    lease_table      = optional(string)
    hub_stream       = optional(string)
    sources          = optional(list(string), [])
    sinks            = optional(list(string), [])
    sink_tables      = optional(list(string), [])
    quarantine       = optional(string)
    quarantine_queue = optional(string)
    lake             = optional(string)
    claim_checks     = optional(list(string), [])
    secrets          = optional(list(string), [])
    logs             = optional(string)
  })
  default  = {}
  nullable = false
}

# --- Redis --------------------------------------------------------------------------------------------------------

variable "redis_url" {
  description = "URL of an existing Redis or Valkey, without a password; given to the workers as REDIS_URL. Null with create_redis."
  type        = string
  default     = null

  validation {
    condition     = try(can(regex("^rediss?://[^@]+$", var.redis_url)), false) || var.redis_url == null
    error_message = "The URL starts with redis:// or rediss:// and holds no user or password: pass those as secrets."
  }
}

variable "redis_port" {
  description = "Port of Redis, opened for the workers."
  type        = number
  default     = 6379
}

variable "redis_auth_secret_arn" {
  description = "Secret in Secrets Manager whose text is Redis' password; given to the workers as REDIS_PASSWORD."
  type        = string
  default     = null

  validation {
    condition     = try(can(regex("^arn:[a-z-]+:secretsmanager:[^:]+:[0-9]{12}:secret:[^:*]+$", var.redis_auth_secret_arn)), false) || var.redis_auth_secret_arn == null
    error_message = "The password is given as the full ARN of a secret in Secrets Manager that holds nothing else."
  }
}

variable "create_redis" {
  description = "Whether to make an ElastiCache replication group (Valkey, TLS, encrypted at rest, a replica in another zone)."
  type        = bool
  default     = false
}

variable "redis_node_type" {
  description = "Node type of the replication group. 40 bytes per (event, link) in the window decide the memory."
  type        = string
  default     = "cache.t4g.small"
}

# Two roles. The execution role is ECS's own: it pulls the image, opens the log stream and hands over configuration and
# secrets. The task role is the worker's, limited to the calls it makes.
#
# Every statement names its resources. The one exception is ecr:GetAuthorizationToken, which AWS does not
# allow to be limited to a resource.

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }

    condition {
      # ECS may assume the roles for tasks of this account only (the confused deputy).
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_iam_role" "execution" {
  name               = "${local.name_with_region}-execution"
  description        = "ECS on behalf of ${var.name}: image, logs, configuration, secrets."
  assume_role_policy = data.aws_iam_policy_document.assume.json
  tags               = local.tags
}

resource "aws_iam_role_policy" "execution" {
  name   = "execution"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.execution.json
}

data "aws_iam_policy_document" "execution" {
  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.workers.arn}:log-stream:worker/*"]
  }

  statement {
    sid       = "Configuration"
    actions   = ["ssm:GetParameters"]
    resources = [aws_ssm_parameter.config.arn]
  }

  dynamic "statement" {
    for_each = length(local.container_secrets) > 0 ? [1] : []

    content {
      sid     = "Secrets"
      actions = ["secretsmanager:GetSecretValue"]
      # Behind the seventh part of the ARN stands which key of a JSON secret is meant.
      resources = distinct([for arn in values(local.container_secrets) : join(":", slice(split(":", arn), 0, 7))])
    }
  }

  dynamic "statement" {
    for_each = length(var.kms.secrets) > 0 ? [1] : []

    content {
      sid       = "SecretsKey"
      actions   = ["kms:Decrypt"]
      resources = var.kms.secrets
    }
  }

  dynamic "statement" {
    for_each = var.ecr_repository_arn == null ? [] : [1]

    content {
      sid       = "Image"
      actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      resources = [var.ecr_repository_arn]
    }
  }

  dynamic "statement" {
    for_each = var.ecr_repository_arn == null ? [] : [1]

    content {
      sid       = "ImageLogin"
      actions   = ["ecr:GetAuthorizationToken"]
      resources = ["*"]
    }
  }
}

resource "aws_iam_role" "task" {
  name               = "${local.name_with_region}-task"
  description        = "Workers of ${var.name}."
  assume_role_policy = data.aws_iam_policy_document.assume.json
  tags               = local.tags
}

resource "aws_iam_role_policy" "task" {
  name   = "worker"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.task.json
}

data "aws_iam_policy_document" "task" {
  statement {
    sid = "ReadSources"
    actions = [
      "kinesis:DescribeStreamSummary",
      "kinesis:GetRecords",
      "kinesis:GetShardIterator",
      "kinesis:ListShards",
    ]
    resources = distinct(concat(local.source_arns, var.cdc_stream_arns))
  }

  dynamic "statement" {
    for_each = length(local.sink_arns) > 0 ? [1] : []

    content {
      sid = "WriteSinksAndReadBack"
      actions = [
        "kinesis:DescribeStreamSummary",
        "kinesis:GetRecords",
        "kinesis:GetShardIterator",
        "kinesis:ListShards",
        "kinesis:PutRecords",
      ]
      resources = local.sink_arns
    }
  }

  dynamic "statement" {
    for_each = length(var.sink_queue_arns) > 0 ? [1] : []

    content {
      sid       = "SendToQueues"
      actions   = ["sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"]
      resources = var.sink_queue_arns
    }
  }

  dynamic "statement" {
    for_each = length(var.sink_bus_arns) > 0 ? [1] : []

    content {
      # PutEvents says nothing of a bus that does not exist; so the bus is looked at first.
      sid       = "PutToBuses"
      actions   = ["events:DescribeEventBus", "events:PutEvents"]
      resources = var.sink_bus_arns
    }
  }

  dynamic "statement" {
    for_each = length(var.sink_table_arns) > 0 ? [1] : []

    content {
      # A condition that fails answers with the item, and PutItem alone is enough for that. Nothing is ever removed.
      sid       = "PutToTables"
      actions   = ["dynamodb:DescribeTable", "dynamodb:PutItem"]
      resources = var.sink_table_arns
    }
  }

  dynamic "statement" {
    for_each = length(var.queue_arns) > 0 ? [1] : []

    content {
      sid = "Queues"
      actions = [
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:GetQueueUrl",
        "sqs:ReceiveMessage",
      ]
      resources = var.queue_arns
    }
  }

  dynamic "statement" {
    for_each = length(var.table_arns) > 0 ? [1] : []

    content {
      sid       = "DescribeTables"
      actions   = ["dynamodb:DescribeTable"]
      resources = var.table_arns
    }
  }

  dynamic "statement" {
    for_each = length(var.table_arns) > 0 ? [1] : []

    content {
      sid       = "ReadChanges"
      actions   = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"]
      resources = [for arn in var.table_arns : "${arn}/stream/*"]
    }
  }

  statement {
    sid = "Leases"
    actions = [
      "dynamodb:DeleteItem",
      "dynamodb:GetItem",
      "dynamodb:PutItem",
      "dynamodb:Query",
      "dynamodb:UpdateItem",
    ]
    resources = [aws_dynamodb_table.leases.arn]
  }

  dynamic "statement" {
    for_each = var.quarantine_s3 == null ? [] : [var.quarantine_s3]

    content {
      sid       = "Quarantine"
      actions   = ["s3:PutObject"]
      resources = ["arn:${data.aws_partition.current.partition}:s3:::${statement.value.bucket}/${statement.value.prefix}*"]
    }
  }

  # Which keys are held, where a link has `on_poison: hold_key`.
  dynamic "statement" {
    for_each = var.quarantine_s3 == null ? [] : [var.quarantine_s3]

    content {
      sid       = "QuarantineMarks"
      actions   = ["s3:ListBucket"]
      resources = ["arn:${data.aws_partition.current.partition}:s3:::${statement.value.bucket}"]

      condition {
        test     = "StringLike"
        variable = "s3:prefix"
        values   = ["${statement.value.prefix}*"]
      }
    }
  }

  # The worker only sends; who lists and redrives has the other actions of their own.
  dynamic "statement" {
    for_each = var.quarantine_queue_arn == null ? [] : [var.quarantine_queue_arn]

    content {
      sid       = "QuarantineQueue"
      actions   = ["sqs:GetQueueUrl", "sqs:SendMessage"]
      resources = [statement.value]
    }
  }

  # Who replays needs ListBucket and GetObject as well, and has them of their own.
  dynamic "statement" {
    for_each = var.lake_s3 == null ? [] : [var.lake_s3]

    content {
      sid       = "Lake"
      actions   = ["s3:PutObject"]
      resources = ["arn:${data.aws_partition.current.partition}:s3:::${statement.value.bucket}/${statement.value.prefix}*"]
    }
  }

  # For continue_from: what the hub no longer keeps for a link.
  dynamic "statement" {
    for_each = try(var.lake_s3.is_read, false) ? [var.lake_s3] : []

    content {
      sid       = "LakeObjects"
      actions   = ["s3:GetObject"]
      resources = ["arn:${data.aws_partition.current.partition}:s3:::${statement.value.bucket}/${statement.value.prefix}*"]
    }
  }

  dynamic "statement" {
    for_each = try(var.lake_s3.is_read, false) ? [var.lake_s3] : []

    content {
      sid       = "LakeNames"
      actions   = ["s3:ListBucket"]
      resources = ["arn:${data.aws_partition.current.partition}:s3:::${statement.value.bucket}"]

      condition {
        test     = "StringLike"
        variable = "s3:prefix"
        values   = ["${statement.value.prefix}*"]
      }
    }
  }

  # Bodies of large events, in the peer regions; who reads them are the consumers there.
  dynamic "statement" {
    for_each = length(var.claim_check_s3) > 0 ? [1] : []

    content {
      sid       = "ClaimChecks"
      actions   = ["s3:PutObject"]
      resources = [for place in var.claim_check_s3 : "arn:${data.aws_partition.current.partition}:s3:::${place.bucket}/${place.prefix}*"]
    }
  }

  dynamic "statement" {
    for_each = length(local.decrypt_keys) > 0 ? [1] : []

    content {
      sid       = "Decrypt"
      actions   = ["kms:Decrypt"]
      resources = local.decrypt_keys
    }
  }

  dynamic "statement" {
    for_each = length(local.encrypt_keys) > 0 ? [1] : []

    content {
      sid       = "Encrypt"
      actions   = ["kms:GenerateDataKey"]
      resources = local.encrypt_keys
    }
  }

  dynamic "statement" {
    for_each = var.kms.lease_table == null ? [] : [var.kms.lease_table]

    content {
      # What DynamoDB asks of a caller whose table has a customer-managed key, and by way of DynamoDB only.
      sid       = "LeasesKey"
      actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["dynamodb.${var.region}.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = length(var.kms.sink_tables) > 0 ? [1] : []

    content {
      # The same for tables of the peer regions.
      sid       = "SinkTablesKey"
      actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"]
      resources = var.kms.sink_tables

      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        values   = ["dynamodb.*.amazonaws.com"]
      }
    }
  }
}

locals {
  # Sinks are decrypted too: an event in doubt is looked for in the peer's stream.
  # SQS asks both of whoever sends to an encrypted queue (SQS Developer Guide, "Configure KMS permissions").
  decrypt_keys = distinct(concat(
    var.kms.sources,
    compact([var.kms.hub_stream, var.kms.quarantine_queue, try(var.lake_s3.is_read, false) ? var.kms.lake : null]),
    var.kms.sinks,
  ))
  encrypt_keys = distinct(concat(var.kms.sinks, var.kms.claim_checks, compact([var.kms.quarantine, var.kms.quarantine_queue, var.kms.lake])))
}

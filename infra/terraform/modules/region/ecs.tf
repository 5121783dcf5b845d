# The workers: one container a task, on Fargate.

resource "aws_ecs_cluster" "this" {
  count = local.is_cluster_own ? 1 : 0

  name = var.name
  tags = local.tags

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

locals {
  environment = merge(
    {
      REPLICATOR_LEASE_TABLE = aws_dynamodb_table.leases.name
      REPLICATOR_STATUS_PORT = tostring(var.status_port)
      # ECS reads the parameter when a task starts. The digest makes a changed configuration a new revision, so that
      # it is rolled out, and rolled back by the circuit breaker, like a new image.
      REPLICATOR_CONFIG_SHA256 = sha256(var.config_yaml)
    },
    local.redis_url == null ? {} : { REDIS_URL = local.redis_url },
    var.quarantine_s3 == null ? {} : {
      REPLICATOR_QUARANTINE_BUCKET = var.quarantine_s3.bucket
      REPLICATOR_QUARANTINE_PREFIX = var.quarantine_s3.prefix
    },
    var.quarantine_queue_arn == null ? {} : {
      REPLICATOR_QUARANTINE_QUEUE = reverse(split(":", var.quarantine_queue_arn))[0]
    },
    var.lake_s3 == null ? {} : {
      REPLICATOR_LAKE_BUCKET = var.lake_s3.bucket
      REPLICATOR_LAKE_PREFIX = var.lake_s3.prefix
    },
    var.environment,
  )

  container = {
    name      = "replicator"
    image     = var.image
    essential = true
    command   = ["run", "--config", "env:REPLICATOR_CONFIG", "--region", var.region]

    user                   = "10001:10001"
    readonlyRootFilesystem = true
    stopTimeout            = var.stop_timeout_s
    linuxParameters        = { initProcessEnabled = true }
    ulimits                = [{ name = "nofile", softLimit = 65536, hardLimit = 65536 }]

    environment = [for name, value in local.environment : { name = name, value = value }]
    secrets = concat(
      [{ name = "REPLICATOR_CONFIG", valueFrom = aws_ssm_parameter.config.arn }],
      [for name, arn in local.container_secrets : { name = name, valueFrom = arn }],
    )

    healthCheck = {
      command = [
        "CMD", "python", "-c",
        "import urllib.request as u; u.urlopen('http://127.0.0.1:${var.status_port}/healthz', timeout=4)",
      ]
      interval    = 15
      timeout     = 5
      retries     = 3
      startPeriod = 60
    }

    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.workers.name
        awslogs-region        = var.region
        awslogs-stream-prefix = "worker"
        # A log service that is slow must not stop the worker at its next line.
        mode            = "non-blocking"
        max-buffer-size = "4m"
      }
    }
  }
}

resource "aws_ecs_task_definition" "worker" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = tostring(var.cpu)
  memory                   = tostring(var.memory_mib)
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  container_definitions    = jsonencode([local.container])
  tags                     = local.tags

  lifecycle {
    precondition {
      condition     = (var.redis_url != null) != var.create_redis
      error_message = "Give either redis_url or create_redis = true."
    }

    precondition {
      condition     = length(local.source_arns) > 0
      error_message = "There is nothing to read: give hub_stream or source_stream_arns."
    }
  }
}

resource "aws_ecs_service" "workers" {
  name            = var.name
  cluster         = local.ecs_cluster_arn
  task_definition = aws_ecs_task_definition.worker.arn
  desired_count   = var.desired_count
  launch_type     = "FARGATE"
  propagate_tags  = "SERVICE"
  tags            = local.tags

  # Old and new workers share the shards by leases, so both may run at once.
  deployment_minimum_healthy_percent = var.minimum_healthy_percent
  deployment_maximum_percent         = var.maximum_percent

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [aws_security_group.workers.id]
    assign_public_ip = var.assign_public_ip
  }

  # Tasks started before their permissions exist would fail and trip the circuit breaker.
  depends_on = [aws_iam_role_policy.execution, aws_iam_role_policy.task]
}

# Redis, if it is to be made here: through CloudFormation, for two reasons. The password is read from Secrets Manager
# by reference, so it never enters Terraform's state, where `auth_token` would stand in plain text. And the
# arguments of aws_elasticache_replication_group were renamed between provider 3 and 5, so that no text is valid
# for both.

locals {
  # A stack's outputs are known once it stands; without a stack there is no URL of ours.
  created_redis_url = one([for stack in aws_cloudformation_stack.redis : "rediss://${stack.outputs["Address"]}:${var.redis_port}/0"])
}

resource "aws_security_group" "redis" {
  count = var.create_redis ? 1 : 0

  name_prefix = "${var.name}-redis-"
  description = "Redis of ${var.name}: in from the workers only."
  vpc_id      = var.vpc_id
  tags        = local.tags

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group_rule" "redis_from_workers" {
  count = var.create_redis ? 1 : 0

  type                     = "ingress"
  description              = "From the workers."
  security_group_id        = aws_security_group.redis[0].id
  protocol                 = "tcp"
  from_port                = var.redis_port
  to_port                  = var.redis_port
  source_security_group_id = aws_security_group.workers.id
}

resource "aws_cloudformation_stack" "redis" {
  count = var.create_redis ? 1 : 0

  name          = "${var.name}-redis"
  template_body = file("${path.module}/redis.cfn.yaml")
  tags          = local.tags

  parameters = {
    Name            = var.name
    NodeType        = var.redis_node_type
    Port            = tostring(var.redis_port)
    SubnetIds       = join(",", var.subnet_ids)
    SecurityGroupId = aws_security_group.redis[0].id
    AuthSecretArn   = var.redis_auth_secret_arn == null ? "" : var.redis_auth_secret_arn
  }
}

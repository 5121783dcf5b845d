# Nothing reaches the workers; they reach AWS by TLS, and Redis. (Names are resolved by the VPC's resolver, which
# security groups do not filter.)

resource "aws_security_group" "workers" {
  name_prefix = "${var.name}-workers-"
  description = "Workers of ${var.name}: out only."
  vpc_id      = var.vpc_id
  tags        = local.tags

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group_rule" "workers_to_aws" {
  type              = "egress"
  description       = "Endpoints of AWS, here and in the peer regions."
  security_group_id = aws_security_group.workers.id
  protocol          = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_blocks       = ["0.0.0.0/0"]
  ipv6_cidr_blocks  = ["::/0"]
}

resource "aws_security_group_rule" "workers_to_redis" {
  type              = "egress"
  description       = "Redis, wherever it is."
  security_group_id = aws_security_group.workers.id
  protocol          = "tcp"
  from_port         = var.redis_port
  to_port           = var.redis_port
  cidr_blocks       = ["0.0.0.0/0"]
  ipv6_cidr_blocks  = ["::/0"]
}

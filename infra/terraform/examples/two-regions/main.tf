# One root, applied once per region, each time with the region's own variables and state (README.md).

terraform {
  required_version = ">= 1.3"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 3.39"
    }
  }

  # The bucket, key and region of the state are given to `terraform init`, one key per region.
  backend "s3" {}
}

provider "aws" {
  region = var.region
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  config = file("${path.module}/replicator.yaml")
  hub    = "orders"

  # Every region makes its hub under the same name, so the peers' ARNs are known before the peers exist.
  hub_arn_start = "arn:${data.aws_partition.current.partition}:kinesis"
  hub_arn_end   = "${data.aws_caller_identity.current.account_id}:stream/${local.hub}"
}

module "replicator" {
  source = "../../modules/region"

  region        = var.region
  image         = var.image
  config_yaml   = local.config
  desired_count = var.desired_count

  vpc_id     = var.vpc_id
  subnet_ids = var.subnet_ids

  hub_stream = {
    name        = local.hub
    shard_count = 4
  }
  sink_stream_arns = [for peer in var.peers : "${local.hub_arn_start}:${peer}:${local.hub_arn_end}"]

  quarantine_s3 = {
    bucket = var.quarantine_bucket
    prefix = "replicator/"
  }

  create_redis          = true
  redis_auth_secret_arn = var.redis_auth_secret_arn
}

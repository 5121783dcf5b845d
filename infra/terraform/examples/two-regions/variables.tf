variable "region" {
  description = "The region this apply is for."
  type        = string
}

variable "peers" {
  description = "The regions this one replicates to."
  type        = list(string)

  validation {
    condition     = length(var.peers) > 0
    error_message = "Name at least one peer."
  }
}

variable "image" {
  description = "Image of replicator, in a registry that the workers reach."
  type        = string
}

variable "desired_count" {
  description = "Number of workers in this region."
  type        = number
  default     = 2
}

variable "vpc_id" {
  description = "VPC of this region."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets with NAT in two availability zones."
  type        = list(string)
}

variable "redis_auth_secret_arn" {
  description = "Secret of this region whose text is Redis' password (16 to 128 characters)."
  type        = string
}

variable "quarantine_bucket" {
  description = "Bucket of this region for events that can't be replicated, with their original bytes."
  type        = string
}

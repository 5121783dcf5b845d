terraform {
  required_version = ">= 1.3"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # Only arguments that mean the same in 3.39 and in 6.x are used: 3.39 is what the checks can get offline.
      version = ">= 3.39"
    }
  }
}

region = "eu-west-1"
peers  = ["us-east-1"]
image  = "example.com/replicator:0.1.0"

# Your network, your secret and your bucket in eu-west-1.
vpc_id                = "vpc-00000000000000002"
subnet_ids            = ["subnet-00000000000000002", "subnet-00000000000000012"]
redis_auth_secret_arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:replicator-redis-AbCdEf"
quarantine_bucket     = "example-quarantine-eu-west-1"

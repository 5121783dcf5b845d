region = "us-east-1"
peers  = ["eu-west-1"]
image  = "example.com/replicator:0.1.0"

# Your network, your secret and your bucket in us-east-1.
vpc_id                = "vpc-00000000000000001"
subnet_ids            = ["subnet-00000000000000001", "subnet-00000000000000011"]
redis_auth_secret_arn = "arn:aws:secretsmanager:us-east-1:111122223333:secret:replicator-redis-AbCdEf"
quarantine_bucket     = "example-quarantine-us-east-1"

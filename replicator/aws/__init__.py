"""What the AWS adapters share: credentials, endpoints, signatures and transport."""

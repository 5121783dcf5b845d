"""The Terraform code: formatted, valid, refusing what can't work, and granting no more than the worker calls.

The machine's terraform runs with the AWS provider of the mirror (infra/terraform/check.py), against moto.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).resolve().parents[2]
REGION, PEER, ACCOUNT = "us-east-1", "eu-west-1", "123456789012"
SINK = f"arn:aws:kinesis:{PEER}:{ACCOUNT}:stream/orders"
TABLE = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/orders"
SINK_QUEUE = f"arn:aws:sqs:{PEER}:{ACCOUNT}:orders.fifo"
SINK_TABLE = f"arn:aws:dynamodb:{PEER}:{ACCOUNT}:table/orders"
SINK_BUS = f"arn:aws:events:{PEER}:{ACCOUNT}:event-bus/orders"
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:orders.fifo"
POISON_QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:orders-poison"
SOURCE = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/payments"
CHANGES = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/changes"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:replicator-AbCdEf"
SERVICES = ("cloudformation", "cloudwatchlogs", "dynamodb", "ec2", "ecs", "iam", "kinesis", "ssm", "sts")
CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


def load_check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("terraform_check", ROOT / "infra/terraform/check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = load_check()
TERRAFORM = check.find_terraform()
IS_CI = bool(os.environ.get("CI"))

pytestmark = [
    pytest.mark.skipif(TERRAFORM is None and not IS_CI, reason="terraform is not on this machine"),
    pytest.mark.xdist_group("terraform"),  # one apply serves all of them
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Any:
    assert TERRAFORM is not None, "terraform must be on a CI machine"
    return check.Workspace(TERRAFORM, tmp_path_factory.mktemp("terraform"))


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def provider(aws: str) -> dict[str, Any]:
    return {
        "region": REGION,
        "access_key": "test",
        "secret_key": "test",
        "skip_credentials_validation": True,
        "skip_metadata_api_check": True,
        "skip_requesting_account_id": True,
        "max_retries": 1,
        "endpoints": [dict.fromkeys(SERVICES, aws)],
    }


def inputs() -> dict[str, Any]:
    """Of the module: every option that grants something is used."""
    return {
        "region": REGION,
        "image": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/replicator:0.1.0",
        "ecr_repository_arn": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/replicator",
        "config_yaml": "regions:\n  us-east-1: {}\n  eu-west-1: {}\n",
        "redis_url": "rediss://cache.internal:6379/0",
        "redis_auth_secret_arn": SECRET,
        "secrets": {"TAG_KEY": f"{SECRET}:tag_key::"},
        "hub_stream": {"name": "orders", "shard_count": 2},
        "source_stream_arns": [SOURCE],
        "cdc_stream_arns": [CHANGES],
        "sink_stream_arns": [SINK],
        "table_arns": [TABLE],
        "queue_arns": [QUEUE],
        "sink_queue_arns": [SINK_QUEUE],
        "sink_bus_arns": [SINK_BUS],
        "sink_table_arns": [SINK_TABLE],
        "quarantine_s3": {"bucket": "lake", "prefix": "quarantine/"},
        "quarantine_queue_arn": POISON_QUEUE,
        "lake_s3": {"bucket": "lake", "prefix": "events/", "is_read": True},
        "claim_check_s3": [{"bucket": "bodies", "prefix": "claim-checks/"}],
        "kms": {
            "lease_table": KEY,
            "sources": [KEY],
            "sinks": [f"{KEY}2"],
            "sink_tables": [f"{KEY}5"],
            "quarantine": f"{KEY}3",
            "quarantine_queue": f"{KEY}7",
            "lake": f"{KEY}4",
            "claim_checks": [f"{KEY}6"],
            "secrets": [KEY],
        },
    }


@pytest.fixture(scope="module")
def network(aws: str) -> dict[str, Any]:
    ec2 = boto3.client("ec2", REGION, endpoint_url=aws, **CREDENTIALS)
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    return {"vpc_id": vpc, "subnet_ids": [subnet]}


class Root:
    """A root module that calls the region module once."""

    def __init__(self, workspace: Any, name: str, aws: str, network: dict[str, Any]) -> None:
        self._workspace, self._root = workspace, f"examples/{name}"
        self._aws, self._network = aws, network
        (workspace.code / self._root).mkdir()
        self.write({})
        workspace.init(self._root)

    def write(self, change: dict[str, Any]) -> None:
        module = {"source": "../../modules/region", **inputs(), **self._network, **change}
        text = json.dumps({"provider": {"aws": provider(self._aws)}, "module": {"it": module}})
        (self._workspace.code / self._root / "main.tf.json").write_text(text)

    def terraform(self, command: str, *arguments: str) -> str:
        result: str = self._workspace.terraform(self._root, command, *arguments)
        return result


@pytest.fixture(scope="module")
def root(workspace: Any, aws: str, network: dict[str, Any]) -> Root:
    return Root(workspace, "applied", aws, network)


@pytest.fixture(scope="module")
def broken(workspace: Any, aws: str, network: dict[str, Any]) -> Root:
    return Root(workspace, "broken", aws, network)


@pytest.fixture(scope="module")
def applied(root: Root) -> dict[str, Any]:
    """What stands after an apply: resource address within the module -> attributes."""
    root.terraform("apply", "-auto-approve", "-input=false", "-no-color")
    state = json.loads(root.terraform("show", "-json"))
    (module,) = state["values"]["root_module"]["child_modules"]
    return {r["address"].removeprefix("module.it."): r["values"] for r in module["resources"]}


def statements(policy: str) -> dict[str, dict[str, Any]]:
    return {statement["Sid"]: statement for statement in json.loads(policy)["Statement"]}


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_module_and_example_are_formatted_and_valid(workspace: Any) -> None:
    check.check(workspace)


@pytest.mark.slow
def test_a_second_plan_has_nothing_to_change(root: Root, applied: dict[str, Any]) -> None:
    root.terraform("plan", "-detailed-exitcode", "-input=false", "-no-color")


def test_the_lease_table_is_what_the_lease_store_expects_and_is_kept_safe(aws: str, applied: dict[str, Any]) -> None:
    dynamodb = boto3.client("dynamodb", REGION, endpoint_url=aws, **CREDENTIALS)
    table = dynamodb.describe_table(TableName="replicator-leases")["Table"]
    assert {(k["AttributeName"], k["KeyType"]) for k in table["KeySchema"]} == {
        ("pk", "HASH"),
        ("sk", "RANGE"),
    }
    assert {(a["AttributeName"], a["AttributeType"]) for a in table["AttributeDefinitions"]} == {
        ("pk", "S"),
        ("sk", "S"),
    }
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    backups = dynamodb.describe_continuous_backups(TableName="replicator-leases")["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    assert applied["aws_dynamodb_table.leases"]["server_side_encryption"][0]["enabled"]


def test_table_and_hub_can_not_be_destroyed_by_a_plan(root: Root, applied: dict[str, Any]) -> None:
    with pytest.raises(check.CommandError, match="prevent_destroy"):
        root.terraform("plan", "-destroy", "-input=false", "-no-color")


def test_the_hub_is_encrypted_and_keeps_a_week(applied: dict[str, Any]) -> None:
    hub = applied["aws_kinesis_stream.hub[0]"]
    assert (hub["encryption_type"], hub["kms_key_id"], hub["retention_period"]) == (
        "KMS",
        "alias/aws/kinesis",
        168,
    )


def test_the_worker_may_make_exactly_the_calls_it_makes(applied: dict[str, Any]) -> None:
    granted = {
        sid: (set(as_list(s["Action"])), set(as_list(s["Resource"])))
        for sid, s in statements(applied["aws_iam_role_policy.task"]["policy"]).items()
    }
    reading = {f"kinesis:{a}" for a in ("DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards")}
    table = {f"dynamodb:{a}Item" for a in ("Get", "Put", "Update", "Delete")} | {"dynamodb:Query"}
    changes = {f"dynamodb:{a}" for a in ("DescribeStream", "GetRecords", "GetShardIterator")}
    message = {"ChangeMessageVisibility", "DeleteMessage", "ReceiveMessage"}
    queues = {f"sqs:{a}" for a in {"GetQueueAttributes", "GetQueueUrl"} | message}
    sources = {SOURCE, applied["aws_kinesis_stream.hub[0]"]["arn"]}
    table_key = {f"kms:{a}" for a in ("Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey")}
    assert granted == {
        "ReadSources": (reading, sources | {CHANGES}),
        "WriteSinksAndReadBack": (reading | {"kinesis:PutRecords"}, {SINK} | sources),
        "SendToQueues": ({f"sqs:{a}" for a in ("GetQueueAttributes", "GetQueueUrl", "SendMessage")}, {SINK_QUEUE}),
        "PutToBuses": ({"events:DescribeEventBus", "events:PutEvents"}, {SINK_BUS}),
        "PutToTables": ({"dynamodb:DescribeTable", "dynamodb:PutItem"}, {SINK_TABLE}),
        "Queues": (queues, {QUEUE}),
        "DescribeTables": ({"dynamodb:DescribeTable"}, {TABLE}),
        "ReadChanges": (changes, {f"{TABLE}/stream/*"}),
        "Leases": (table, {applied["aws_dynamodb_table.leases"]["arn"]}),
        "Quarantine": ({"s3:PutObject"}, {"arn:aws:s3:::lake/quarantine/*"}),
        "QuarantineQueue": ({"sqs:GetQueueUrl", "sqs:SendMessage"}, {POISON_QUEUE}),
        "Lake": ({"s3:PutObject"}, {"arn:aws:s3:::lake/events/*"}),
        "LakeObjects": ({"s3:GetObject"}, {"arn:aws:s3:::lake/events/*"}),
        "LakeNames": ({"s3:ListBucket"}, {"arn:aws:s3:::lake"}),
        "ClaimChecks": ({"s3:PutObject"}, {"arn:aws:s3:::bodies/claim-checks/*"}),
        "QuarantineMarks": ({"s3:ListBucket"}, {"arn:aws:s3:::lake"}),
        "Decrypt": ({"kms:Decrypt"}, {KEY, f"{KEY}2", f"{KEY}4", f"{KEY}7"}),
        "Encrypt": ({"kms:GenerateDataKey"}, {f"{KEY}2", f"{KEY}3", f"{KEY}4", f"{KEY}6", f"{KEY}7"}),
        "LeasesKey": (table_key, {KEY}),
        "SinkTablesKey": (table_key, {f"{KEY}5"}),
    }


def test_ecs_may_start_the_worker_and_nothing_else(applied: dict[str, Any]) -> None:
    granted = statements(applied["aws_iam_role_policy.execution"]["policy"])
    everywhere = {sid for sid, s in granted.items() if "*" in as_list(s["Resource"])}
    assert everywhere == {"ImageLogin"}, "ecr:GetAuthorizationToken alone can't be limited"
    assert granted["ImageLogin"]["Action"] == "ecr:GetAuthorizationToken"
    assert granted["Secrets"]["Resource"] == SECRET, "the key within a JSON secret is no part of what is granted"
    assert granted["Configuration"]["Resource"] == applied["aws_ssm_parameter.config"]["arn"]


def test_only_ecs_of_this_account_assumes_the_roles(applied: dict[str, Any]) -> None:
    for role in ("task", "execution"):
        (trust,) = json.loads(applied[f"aws_iam_role.{role}"]["assume_role_policy"])["Statement"]
        assert trust["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
        ((key, account),) = trust["Condition"]["StringEquals"].items()
        assert (key, as_list(account)) == ("aws:SourceAccount", [ACCOUNT])


def test_nothing_reaches_the_workers(applied: dict[str, Any]) -> None:
    rules = [values for address, values in applied.items() if address.startswith("aws_security_group_rule")]
    assert {(rule["type"], rule["from_port"]) for rule in rules} == {("egress", 443), ("egress", 6379)}


@pytest.fixture(scope="module")
def container(applied: dict[str, Any]) -> dict[str, Any]:
    (container,) = json.loads(applied["aws_ecs_task_definition.worker"]["container_definitions"])
    return container


def test_the_container_is_locked_down_and_has_time_to_drain(container: dict[str, Any]) -> None:
    assert container["readonlyRootFilesystem"] is True
    assert container["user"] == "10001:10001"
    assert container["stopTimeout"] == 60


def test_the_worker_gets_its_configuration_by_reference(container: dict[str, Any], applied: dict[str, Any]) -> None:
    assert container["command"] == ["run", "--config", "env:REPLICATOR_CONFIG", "--region", REGION]
    assert {s["name"]: s["valueFrom"] for s in container["secrets"]} == {
        "REPLICATOR_CONFIG": applied["aws_ssm_parameter.config"]["arn"],
        "REDIS_PASSWORD": SECRET,
        "TAG_KEY": f"{SECRET}:tag_key::",
    }
    assert {e["name"] for e in container["environment"]} == {
        "REPLICATOR_LEASE_TABLE",
        "REPLICATOR_STATUS_PORT",
        "REPLICATOR_CONFIG_SHA256",
        "REPLICATOR_QUARANTINE_BUCKET",
        "REPLICATOR_QUARANTINE_PREFIX",
        "REPLICATOR_QUARANTINE_QUEUE",
        "REPLICATOR_LAKE_BUCKET",
        "REPLICATOR_LAKE_PREFIX",
        "REDIS_URL",
    }


def test_the_health_check_is_a_python_program_that_fails_when_nobody_answers(
    container: dict[str, Any],
) -> None:
    kind, python, *arguments = container["healthCheck"]["command"]
    assert (kind, python) == ("CMD", "python")
    # Port 1 on loopback: nobody listens, so this is what ECS sees of a worker that is gone.
    arguments[-1] = re.sub(r":8080/healthz", ":1/healthz", arguments[-1])
    assert subprocess.run([sys.executable, *arguments], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (
            {
                "region": "us-east",
                "config_yaml": "regions: [",
                "image": "replicator",
                "stop_timeout_s": 300,
                "sink_stream_arns": ["arn:aws:kinesis:eu-west-1:123456789012:stream/*"],
                "sink_table_arns": [f"{SINK_TABLE}*"],
                "hub_stream": {"name": "orders", "shard_count": 0},
                "redis_url": "redis://:hunter2@cache:6379",
                "quarantine_s3": {"bucket": "lake", "prefix": "*"},
                "quarantine_queue_arn": QUEUE,
                "lake_s3": {"bucket": "lake", "prefix": "*"},
                "claim_check_s3": [{"bucket": "b", "prefix": "*"}],
            },
            [
                "canonical name such as us-east-1",
                "must be a YAML mapping",
                "needs a tag or a digest",
                "120 s at most",
                "Sinks are ARNs of Kinesis streams, without wildcards",
                "Tables to be written are ARNs of DynamoDB tables, without wildcards",
                "at least 1 shard",
                "pass those as secrets",
                "The prefix must end in a slash",
                "The quarantine's queue is the ARN of a standard SQS queue",
                "The lake's prefix must end in a slash",
                "The prefixes of claim checks must end in a slash",
            ],
        ),
        (
            {"image": "replicator:latest", "config_yaml": "a: " + "x" * 9000},
            ["not the tag latest", "larger than the 8 KB"],
        ),
        ({"region": PEER}, [f"provider is configured for {REGION}, but region is {PEER}"]),
        (
            {"source_stream_arns": [], "hub_stream": None, "redis_url": None},
            ["There is nothing to read", "Give either redis_url or create_redis"],
        ),
        ({"config_yaml": "regions: {eu-west-1: {}}"}, [f"configuration names no region {REGION}"]),
    ],
    ids=["wrong values", "other wrong values", "another region", "nothing to work with", "no such region"],
)
def test_what_can_not_work_is_refused_before_anything_is_made(
    broken: Root, change: dict[str, Any], messages: list[str]
) -> None:
    """Terraform says at once all that is wrong."""
    broken.write(change)
    with pytest.raises(check.CommandError) as refused:
        broken.terraform("plan", "-input=false", "-no-color")
    said = re.sub(r"[\s│]+", " ", str(refused.value))
    assert [message for message in messages if message not in said] == []


@pytest.mark.parametrize(("region", "peer"), [(REGION, PEER), (PEER, REGION)])
def test_the_example_plans_each_region_with_the_other_as_its_sink(
    workspace: Any, aws: str, region: str, peer: str
) -> None:
    folder = workspace.code / "examples/two-regions"
    override = {
        "provider": {"aws": {**provider(aws), "region": region}},
        "terraform": {"backend": {"local": {}}},
    }
    (folder / "override.tf.json").write_text(json.dumps(override))
    workspace.terraform("examples/two-regions", "init", "-reconfigure", "-input=false", "-no-color")
    saved = f"{region}.plan"
    workspace.terraform(
        "examples/two-regions",
        "plan",
        "-input=false",
        f"-var-file={region}.tfvars",
        f"-out={saved}",
        "-no-color",
    )
    plan = json.loads(workspace.terraform("examples/two-regions", "show", "-json", saved))
    made = {change["type"] for change in plan["resource_changes"] if change["change"]["actions"] == ["create"]}
    assert {"aws_dynamodb_table", "aws_kinesis_stream", "aws_ecs_service", "aws_cloudformation_stack"} <= made
    assert f"arn:aws:kinesis:{peer}:{ACCOUNT}:stream/orders" in json.dumps(
        plan["resource_changes"] + [plan["prior_state"]]
    )


def test_the_template_of_redis_is_valid() -> None:
    template = ROOT / "infra/terraform/modules/region/redis.cfn.yaml"
    done = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), template], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

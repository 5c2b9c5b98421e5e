"""Asks an issuer's admin socket what it serves, as grpcurl would, and how it is.

usage: health_and_reflection.py SOCKET; prints one JSON object.
"""

import json
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf import message_factory

# The core library would send the socket's path as :authority, which HTTP/2
# servers in Rust refuse.
channel = grpc.insecure_channel(
    "unix:" + sys.argv[1], options=[("grpc.default_authority", "localhost")]
)
database = ProtoReflectionDescriptorDatabase(channel)
pool = DescriptorPool(database)
service = pool.FindServiceByName("tbot.admin.v1.AdminService")
method = service.methods_by_name["GetStatus"]
# A call made of nothing but what reflection told.
call = channel.unary_unary(
    f"/{service.full_name}/{method.name}",
    request_serializer=lambda message: message.SerializeToString(),
    response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
)
request = message_factory.GetMessageClass(method.input_type)()
status, answered = call.with_call(request, metadata=[("x-request-id", "from-python-1")])

health = health_pb2_grpc.HealthStub(channel)
name = health_pb2.HealthCheckResponse.ServingStatus.Name


def check(service):
    try:
        return name(health.Check(health_pb2.HealthCheckRequest(service=service)).status)
    except grpc.RpcError as error:
        return error.code().name


print(
    json.dumps(
        {
            "services": sorted(database.get_services()),
            "methods": sorted(service.methods_by_name),
            "trust_domain": status.trust_domain,
            "request_id": dict(answered.initial_metadata()).get("x-request-id"),
            "health": {
                service: check(service)
                for service in ("", "tbot.admin.v1.AdminService", "no.such.Service")
            },
        }
    ),
    flush=True,
)

if "--watch" in sys.argv:
    try:
        for answer in health.Watch(health_pb2.HealthCheckRequest(service="")):
            print(name(answer.status), flush=True)
    except grpc.RpcError as error:
        print(error.code().name, flush=True)

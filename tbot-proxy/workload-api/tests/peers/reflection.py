"""Asks a server what it serves, by gRPC reflection over its Unix socket."""

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

channel = grpc.insecure_channel("unix:" + sys.argv[1])
database = ProtoReflectionDescriptorDatabase(channel)
services = database.get_services()
print(*services)
service = DescriptorPool(database).FindServiceByName("SpiffeWorkloadAPI")
print(*(method.name for method in service.methods))

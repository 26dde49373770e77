"""Pre-signs requests with boto3, which sends nothing for that, and prints one JSON object for each: name, method, URL."""
import json
import sys

import boto3

ENDPOINT, REGION = sys.argv[1:3]


def client(service):
    return boto3.client(service, endpoint_url=ENDPOINT, region_name=REGION)


def show(name, method, url):
    print(json.dumps({"name": name, "method": method, "url": url}))


functions = client("lambda")
arn = "arn:aws:lambda:%s:123456789012:function:echo" % REGION
for name in "echo", "echo:1", arn:
    show("invoke " + name, "POST", functions.generate_presigned_url("invoke", Params={"FunctionName": name}, ExpiresIn=60))
show("invoke of a version", "POST", functions.generate_presigned_url("invoke", Params={"FunctionName": "echo", "Qualifier": "$LATEST"}))
show("get_function", "GET", functions.generate_presigned_url("get_function", Params={"FunctionName": arn}, ExpiresIn=604800))
show("list_functions", "GET", functions.generate_presigned_url("list_functions", Params={"MaxItems": 10, "Marker": "a b+c/é~"}))
show("list_tags", "GET", functions.generate_presigned_url("list_tags", Params={"Resource": arn}))
show("untag_resource", "DELETE", functions.generate_presigned_url("untag_resource", Params={"Resource": arn, "TagKeys": ["one"]}))
for method in "GET", "POST":
    show("get_caller_identity by " + method, method, client("sts").generate_presigned_url("get_caller_identity", HttpMethod=method))
    show("list_roles by " + method, method, client("iam").generate_presigned_url("list_roles", Params={"PathPrefix": "/a+b/~%/"}, HttpMethod=method))

package iam

import "time"

// awsManaged are the policies of AWS that are here: for administrators, for those who work with
// functions, and for functions. The documents say what AWS's managed policy reference says.
var awsManaged = []managedPolicy{
	{
		Name: "AdministratorAccess", Path: "/", ID: "ANPAIWMBCKSKIEE64ZLYK",
		Description: "Provides full access to AWS services and resources.",
		Created:     time.Date(2015, 2, 6, 18, 39, 46, 0, time.UTC),
		Document:    `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`,
	},
	{
		Name: "AWSLambdaBasicExecutionRole", Path: "/service-role/", ID: "ANPAJNCQGXC42545SKXIK",
		Description: "Provides write permissions to CloudWatch Logs.",
		Created:     time.Date(2015, 4, 9, 15, 3, 43, 0, time.UTC),
		Document: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
			"Action":["logs:CreateLogGroup","logs:CreateLogStream","logs:PutLogEvents"],"Resource":"*"}]}`,
	},
	{
		Name: "AWSLambdaRole", Path: "/service-role/", ID: "ANPAJX4DPCRGTC4NFDUXI",
		Description: "Default policy for AWS Lambda service role.",
		Created:     time.Date(2015, 2, 6, 18, 41, 28, 0, time.UTC),
		Document:    `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["lambda:InvokeFunction"],"Resource":["*"]}]}`,
	},
	{
		Name: "AWSLambda_FullAccess", Path: "/", ID: "ANPACLOISTERLAMBDAALL",
		Description: "Grants full access to AWS Lambda service, AWS Lambda console features, and other related AWS services.",
		Created:     time.Date(2020, 11, 17, 21, 14, 18, 0, time.UTC),
		Document: `{"Version":"2012-10-17","Statement":[
			{"Effect":"Allow","Action":["cloudformation:DescribeStacks","cloudformation:ListStackResources","cloudwatch:ListMetrics",
				"cloudwatch:GetMetricData","ec2:DescribeSecurityGroups","ec2:DescribeSubnets","ec2:DescribeVpcs","kms:ListAliases",
				"iam:GetPolicy","iam:GetPolicyVersion","iam:GetRole","iam:GetRolePolicy","iam:ListAttachedRolePolicies",
				"iam:ListRolePolicies","iam:ListRoles","lambda:*","logs:DescribeLogGroups","states:DescribeStateMachine",
				"states:ListStateMachines","tag:GetResources","xray:GetTraceSummaries","xray:BatchGetTraces"],"Resource":"*"},
			{"Effect":"Allow","Action":"iam:PassRole","Resource":"*",
				"Condition":{"StringEquals":{"iam:PassedToService":"lambda.amazonaws.com"}}},
			{"Effect":"Allow","Action":["logs:DescribeLogStreams","logs:GetLogEvents","logs:FilterLogEvents","logs:StartLiveTail",
				"logs:StopLiveTail"],"Resource":"arn:aws:logs:*:*:log-group:/aws/lambda/*"}]}`,
	},
}

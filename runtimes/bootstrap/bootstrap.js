'use strict';
// Runs a Node.js function: asks the Runtime API for events and gives them to its handler.
//
// It is the first program of a Node.js execution environment and shares a process with the
// customer's code, so nothing in here protects anything: what must hold against that code is
// enforced outside, by the sandbox and the Runtime API server.
//
// What the customer can see (error types and messages, log lines, the context object, which file
// a handler name means) is what AWS's own Node.js runtimes do.

const fs = require('fs');
const path = require('path');

const { RuntimeAPI } = require('./cloister-api.js');
const { current, describe, fault, logError, patchConsole, traceCause } = require('./cloister-log.js');

const EXIT_UNHANDLED_REJECTION = 128;
const EXIT_UNCAUGHT_EXCEPTION = 129;
const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const MAJOR = Number(process.versions.node.split('.')[0]);

// --- The customer's function --------------------------------------------------------------------

// isModuleFolder says whether .js files in the folder are ES modules.
function isModuleFolder(folder) {
  for (let at = folder; !at.endsWith('/node_modules'); at = path.dirname(at)) {
    const file = path.join(at, 'package.json');
    if (fs.existsSync(file)) {
      try {
        return JSON.parse(fs.readFileSync(file, 'utf8'))?.type === 'module';
      } catch (error) {
        console.warn(`${file} cannot be read, it is ignored for ES module detection.`, error);
        return false;
      }
    }
    if (at === '/') break;
  }
  return false;
}

async function loadModule(root, folder, name) {
  const file = path.resolve(root, folder, name);
  const module = isModuleFolder(path.dirname(file));
  const typescript = MAJOR >= 24 ? ['.ts', '.mts', '.cts'] : [];
  for (const extension of ['', '.js', '.mjs', '.cjs', ...typescript]) {
    if (!fs.statSync(file + extension, { throwIfNoEntry: false })?.isFile()) continue;
    const asModule =
      extension.startsWith('.m') || (module && (extension === '.js' || extension === '.ts'));
    return asModule ? import(file + extension) : require(file + extension);
  }
  return require(require.resolve(name, { paths: [root, path.join(root, folder)] }));
}

async function loadHandler(root, name) {
  if (name.includes('..')) {
    throw fault(
      'MalformedHandlerName',
      `'${name}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`,
    );
  }
  const base = path.basename(name);
  const dot = base.indexOf('.');
  if (dot < 0) throw fault('MalformedHandlerName', 'Bad handler');
  let module;
  try {
    module = await loadModule(root, name.slice(0, name.indexOf(base)), base.slice(0, dot));
  } catch (error) {
    if (error instanceof SyntaxError) throw fault('UserCodeSyntaxError', String(error), error);
    if (error?.code === 'MODULE_NOT_FOUND') {
      throw fault('ImportModuleError', String(error), error);
    }
    throw error;
  }
  let handler = module;
  for (const key of base.slice(dot + 1).split('.')) handler = handler?.[key];
  if (!handler) throw fault('HandlerNotFound', `${name} is undefined or not exported`);
  if (typeof handler !== 'function') throw fault('HandlerNotFound', `${name} is not a function`);
  if (handler[STREAMING]) {
    throw fault('MalformedStreamingHandler', 'Response streaming is not supported.');
  }
  return handler;
}

// --- One event ----------------------------------------------------------------------------------

function parseHeader(text, name) {
  if (text === undefined || text === '') return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`Cannot parse ${name} as json: ${error}`);
  }
}

function contextOf(headers) {
  const deadline = Number(headers['lambda-runtime-deadline-ms']);
  return {
    callbackWaitsForEmptyEventLoop: true,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: parseHeader(headers['lambda-runtime-client-context'], 'ClientContext'),
    identity: parseHeader(headers['lambda-runtime-cognito-identity'], 'CognitoIdentity'),
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    awsRequestId: headers['lambda-runtime-aws-request-id'],
    tenantId: headers['lambda-runtime-aws-tenant-id'],
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
}

// Invocation decides which of the handler's many ways to end counts: the first.
class Invocation {
  constructor(handler) {
    this.handler = handler;
    this.ended = new Promise((resolve) => (this.resolve = resolve));
  }

  succeed(result) {
    this.atRest = undefined;
    this.resolve({ result });
  }

  fail(error) {
    this.atRest = undefined;
    this.resolve({ error: error === undefined || error === null ? 'handled' : error, failed: true });
  }

  // callback is the handler's third argument.
  callback(context, error, result) {
    if (error !== undefined && error !== null) this.fail(error);
    else if (!context.callbackWaitsForEmptyEventLoop) this.succeed(result);
    else if (!this.called) this.atRest = () => this.succeed(result);
    this.called = true;
  }

  run(event, headers) {
    this.atRest = () => this.rest();
    try {
      const context = contextOf(headers);
      if (MAJOR < 24) {
        context.succeed = (result) => this.succeed(result);
        context.fail = (error) => this.fail(error);
        context.done = (error, result) => (error == null ? this.succeed(result) : this.fail(error));
      }
      const result = this.handler(JSON.parse(event), context, (error, value) =>
        this.callback(context, error, value),
      );
      if (typeof result?.then === 'function') {
        result.then(
          (value) => this.succeed(value),
          (error) => this.fail(error),
        );
      }
    } catch (error) {
      this.fail(error);
    }
    return this.ended;
  }

  // rest is called when nothing can happen any more and the handler has not answered.
  rest() {
    if (this.handler.constructor.name !== 'AsyncFunction') {
      this.succeed(null);
      return;
    }
    this.fail(
      fault(
        'NodeJsExit',
        'The Lambda runtime client detected an unexpected Node.js exit code. This is most commonly caused by a Promise that was never settled. For more information, see https://nodejs.org/docs/latest/api/process.html#exit-codes',
      ),
    );
  }
}

// --- The life of the process --------------------------------------------------------------------

function begin(headers) {
  current.requestID = headers['lambda-runtime-aws-request-id'];
  current.tenantID = headers['lambda-runtime-aws-tenant-id'];
  const trace = headers['lambda-runtime-trace-id'];
  if (trace) process.env._X_AMZN_TRACE_ID = trace;
  else delete process.env._X_AMZN_TRACE_ID;
}

function stringify(result) {
  try {
    return JSON.stringify(result === undefined ? null : result) ?? 'null';
  } catch (error) {
    throw new Error(`Unable to stringify response body: ${error?.message}`);
  }
}

function postError(api, error) {
  const cause = traceCause(error);
  const headers = cause ? { 'Lambda-Runtime-Function-XRay-Error-Cause': cause } : {};
  return api.post(`/invocation/${current.requestID}/error`, JSON.stringify(describe(error)), headers);
}

// Streaming handlers are recognised so that they are refused with words that explain it.
globalThis.awslambda = {
  streamifyResponse: (handler) => Object.assign(handler, { [STREAMING]: 'response' }),
  HttpResponseStream: { from: (stream) => stream },
};

// Life is the loop from event to event, and its end.
class Life {
  constructor() {
    this.invocation = null; // the event under way, and between events the one before
    this.ending = false;
  }

  listen() {
    process.on('uncaughtException', (error) => {
      this.end('Uncaught Exception', error, EXIT_UNCAUGHT_EXCEPTION);
    });
    process.on('unhandledRejection', (reason) => {
      const error = fault('UnhandledPromiseRejection', String(reason), reason);
      error.reason = reason;
      this.end('Unhandled Promise Rejection', error, EXIT_UNHANDLED_REJECTION);
    });
    process.on('beforeExit', () => this.invocation?.atRest?.());
  }

  // end reports an error that nobody caught, and exits. The connection is one of its own: the
  // other may be waiting for an answer.
  async end(title, error, code) {
    if (this.ending) return;
    this.ending = true;
    logError(title, error);
    try {
      const api = new RuntimeAPI(process.env.AWS_LAMBDA_RUNTIME_API);
      if (this.invocation === null) {
        const described = describe(error);
        await api.post('/init/error', JSON.stringify(described), {
          'Lambda-Runtime-Function-Error-Type': described.errorType.replace(/[^\x20-\x7e]/g, '?'),
        });
      } else if (!this.invocation.answered) {
        await postError(api, error);
      }
    } finally {
      process.exit(code);
    }
  }

  async run(handler) {
    const api = new RuntimeAPI(process.env.AWS_LAMBDA_RUNTIME_API);
    for (;;) {
      const { headers, body } = await api.next();
      begin(headers);
      this.invocation = new Invocation(handler);
      let { result, error, failed } = await this.invocation.run(body, headers);
      if (this.ending) return;
      this.invocation.answered = true;
      let text;
      if (!failed) {
        try {
          text = stringify(result);
        } catch (problem) {
          [error, failed] = [problem, true];
        }
      }
      if (failed) {
        logError('Invoke Error', error);
        await postError(api, error);
      } else {
        await api.post(`/invocation/${current.requestID}/response`, text, {});
      }
    }
  }
}

async function main() {
  patchConsole();
  const life = new Life();
  life.listen();
  let handler;
  try {
    const root = process.env.LAMBDA_TASK_ROOT || '/var/task';
    handler = await loadHandler(root, process.env._HANDLER || '');
  } catch (error) {
    return life.end('Uncaught Exception', error, EXIT_UNCAUGHT_EXCEPTION);
  }
  return life.run(handler).catch((error) => {
    process.stderr.write(`${error?.stack}\n`);
    process.exit(1);
  });
}

main();

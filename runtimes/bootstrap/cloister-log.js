'use strict';
// Errors and log lines in the forms that callers and log readers know.

const fs = require('fs');
const util = require('util');

const MAX_CAUSE_BYTES = 64 << 10; // of the X-Ray cause, which travels in a header

// --- Errors -------------------------------------------------------------------------------------

function fault(kind, message, cause) {
  const error = new Error(message);
  Object.defineProperty(error, 'name', { value: 'Runtime.' + kind, configurable: true });
  // The trace shows where the customer's code went wrong, under the name of the fault.
  const stack = cause && typeof cause.stack === 'string' ? cause.stack : error.stack;
  const frames = stack.indexOf('\n    at ');
  error.stack = `${error.name}: ${message}` + (frames < 0 ? '' : stack.slice(frames));
  return error;
}

// looksLikeError also accepts errors of another realm, such as a vm context or a test framework.
function looksLikeError(value) {
  return (
    util.types.isNativeError(value) ||
    Boolean(value) && ['name', 'message', 'stack'].every((key) => typeof value[key] === 'string')
  );
}

function describe(error) {
  try {
    if (looksLikeError(error)) {
      return {
        errorType: error.name,
        errorMessage: error.message,
        trace: String(error.stack).split('\n'),
      };
    }
    return { errorType: typeof error, errorMessage: String(error), trace: [] };
  } catch {
    const errorMessage =
      'callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack';
    return { errorType: 'handled', errorMessage, trace: [] };
  }
}

// traceCause returns the error as X-Ray wants it, or undefined if it is too long for a header.
function traceCause(error) {
  const { errorType, errorMessage, trace } = describe(error);
  const stack = [];
  for (const line of trace) {
    const match = /^\s+at (?:(.*?) \()?(.*?):(\d+):\d+\)?$/.exec(line);
    if (match) {
      stack.push({ path: match[2], line: Number(match[3]), label: match[1] || 'anonymous' });
    }
  }
  const cause = JSON.stringify({
    working_directory: process.cwd(),
    exceptions: [{ type: errorType, message: errorMessage, stack }],
    paths: [...new Set(stack.map((frame) => frame.path))],
  });
  // A header holds ASCII only.
  const text = cause.replace(
    /[\u007f-\uffff]/g,
    (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'),
  );
  return text.length <= MAX_CAUSE_BYTES ? text : undefined;
}

// --- Logs ---------------------------------------------------------------------------------------

// current holds what log lines say of the event under way.
const current = { requestID: undefined, tenantID: undefined };

const jsonLogs = (process.env.AWS_LAMBDA_LOG_FORMAT || '').toUpperCase() === 'JSON';

// withProperties makes JSON.stringify write the properties of errors, too.
function withProperties(_, value) {
  if (!(value instanceof Error)) return value;
  const { name: errorType, message: errorMessage, code, stack } = value;
  const trace = typeof stack === 'string' ? stack.split('\n') : stack;
  return jsonLogs
    ? { errorType, errorMessage, stackTrace: trace, ...value }
    : { errorType, errorMessage, code, ...value, stack: trace };
}

function jsonLine(time, level, args) {
  const line = { timestamp: time, level, requestId: current.requestID, tenantId: current.tenantID };
  if (args.length === 1) {
    try {
      return JSON.stringify({ ...line, message: args[0] }, withProperties);
    } catch {
      return JSON.stringify({ ...line, message: util.format(args[0]) });
    }
  }
  line.message = util.format(...args);
  const error = args.find((arg) => arg instanceof Error);
  if (error) {
    line.errorType = error.name;
    line.errorMessage = error.message;
    line.stackTrace = String(error.stack).split('\n');
  }
  return JSON.stringify(line);
}

function writeLog(level, args) {
  const time = new Date().toISOString();
  const line = jsonLogs
    ? jsonLine(time, level, args)
    : `${time}\t${current.requestID}\t${level}\t${util.format(...args)}`;
  // One line is one log event; inside it a line break travels as a carriage return. The write
  // is synchronous, so that nothing is lost when the process is frozen or killed.
  writeSync(line.replaceAll('\n', '\r') + '\n');
}

function writeSync(text) {
  const bytes = Buffer.from(text);
  for (let written = 0; written < bytes.length; ) {
    try {
      written += fs.writeSync(1, bytes, written);
    } catch (error) {
      if (error.code !== 'EAGAIN') return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1); // a full pipe: try again in 1 ms
    }
  }
}

function patchConsole() {
  const levels = ['TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL'];
  const wanted = levels.indexOf((process.env.AWS_LAMBDA_LOG_LEVEL || '').toUpperCase());
  levels.forEach((level, index) => {
    const log = (...args) => writeLog(level, args);
    console[level.toLowerCase()] = index >= wanted ? log : () => {};
  });
  console.log = console.info;
}

function logError(title, error) {
  const shown = error instanceof Error ? error : new Error(String(error));
  if (jsonLogs) {
    console.error(shown);
    return;
  }
  let text;
  try {
    text = JSON.stringify(shown, withProperties);
  } catch {
    text = JSON.stringify(describe(shown));
  }
  console.error(title, '\t' + text);
}

module.exports = { current, describe, fault, logError, patchConsole, traceCause };

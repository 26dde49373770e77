// Counts its invocations: the second one in the same environment answers 2.
let count = 0;

export const handler = async (event, context) => {
  count += 1;
  console.log("hello from", context.functionName);
  return { greeting: `Hello, ${event.name ?? "world"}, from Node.js ${process.versions.node}`, invocation: count };
};

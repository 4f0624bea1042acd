// Reads an AsyncAPI document with the official parser; prints what it found wrong (severity 0: error, 1: warning).
const { readFileSync } = require("node:fs");
const { Parser } = require("@asyncapi/parser");

new Parser().parse(readFileSync(process.argv[2], "utf8")).then(({ document, diagnostics }) => {
  const found = diagnostics.map(({ severity, code, message, path }) => ({ severity, code, message, path: path.join("/") }));
  console.log(JSON.stringify({ parsed: document !== undefined, diagnostics: found }));
});

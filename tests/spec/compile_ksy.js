// Compiles a .ksy file with kaitai-struct-compiler, whose npm package is a library without a command line:
// node compile_ksy.js FILE FOLDER LANGUAGE…
// NODE_PATH names the folder that scripts/install-test-tools has filled. Any warning goes to stderr.
"use strict";
const fs = require("fs");
const path = require("path");
const compiler = require("kaitai-struct-compiler");
const yaml = require("js-yaml");

async function main([file, folder, ...languages]) {
  const description = yaml.load(fs.readFileSync(file, "utf8"));
  for (const language of languages) {
    const files = await compiler.compile(language, description, null, false);
    for (const [name, text] of Object.entries(files)) {
      const target = path.join(folder, language, name);
      fs.mkdirSync(path.dirname(target), { recursive: true });
      fs.writeFileSync(target, text);
    }
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(String(error));
  process.exitCode = 1;
});

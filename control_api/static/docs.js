// Lays out openapi.json as a page. Everything from the document becomes text nodes: nothing of it is ever HTML.
"use strict";

/** An element with properties and children; strings become text. */
function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.flat());
  return element;
}

/** Text in which `backticks` mean code. */
function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));
}

function paragraphs(text) {
  return text.trim().split(/\n\s*\n/).map((part) => make("p", {}, prose(part)));
}

function table(heads, rows) {
  const head = make("tr", {}, heads.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map((row) => make("tr", {}, row.map((cell) => make("td", {}, cell))));
  return make("div", { className: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, body)));
}

/** The name at the end of a $ref, linked to the schema's own section. */
function link(reference) {
  const name = reference.split("/").pop();
  return make("a", { href: `#schema-${name}` }, name);
}

/** A schema in a few words. */
function type(schema) {
  if (schema.$ref) return [link(schema.$ref)];
  const options = schema.anyOf || schema.oneOf || schema.allOf;
  if (options) return options.flatMap((option, index) => (index ? [" or ", ...type(option)] : type(option)));
  if ("const" in schema) return [make("code", {}, JSON.stringify(schema.const))];
  if (schema.enum) {
    return schema.enum.flatMap((value, index) => [index ? " or " : "", make("code", {}, JSON.stringify(value))]);
  }
  if (schema.type === "array") return ["list of ", ...type(schema.items || {})];
  return [schema.format ? `${schema.type} (${schema.format})` : schema.type || "anything"];
}

/** What a schema says beyond its type. */
function remarks(schema) {
  const found = [];
  if (schema.description) found.push(...prose(schema.description), " ");
  const bounds = [
    ["minimum", "at least"], ["maximum", "at most"],
    ["minLength", "characters, at least"], ["maxLength", "characters, at most"],
  ].filter(([name]) => name in schema).map(([name, words]) => `${words} ${schema[name]}`);
  if (bounds.length) found.push(make("span", { className: "quiet" }, bounds.join(", ") + ". "));
  for (const example of schema.examples || []) found.push("Example: ", make("code", {}, JSON.stringify(example)), " ");
  return found;
}

function fields(schema) {
  const required = new Set(schema.required || []);
  return table(["field", "type", ""], Object.entries(schema.properties || {}).map(([name, property]) => [
    [make("code", {}, name), required.has(name) ? "" : make("span", { className: "quiet" }, " optional")],
    type(property),
    remarks(property),
  ]));
}

function body(content) {
  return type((content["application/json"] || {}).schema || {});
}

function operation(path, method, described) {
  const parts = [
    make("h3", { id: described.operationId }, described.summary),
    make("div", { className: "route" },
      make("span", { className: `method ${method}` }, method.toUpperCase()), make("code", {}, path)),
    ...paragraphs(described.description || ""),
  ];
  if (described.parameters) {
    parts.push(make("h4", {}, "Parameters"), table(["name", "in", "type"],
      described.parameters.map((one) => [make("code", {}, one.name), one.in, type(one.schema)])));
  }
  if (described.requestBody) {
    const optional = described.requestBody.required ? "" : " (optional)";
    parts.push(make("h4", {}, "Body" + optional), make("p", {}, body(described.requestBody.content)));
  }
  parts.push(make("h4", {}, "Answers"), table(["status", "body", "when"],
    Object.entries(described.responses).map(([status, answer]) => [
      make("code", {}, status), body(answer.content || {}), prose(answer.description),
    ])));
  return make("section", {}, parts);
}

function show(api) {
  const main = document.getElementById("main");
  const contents = document.getElementById("contents");
  document.title = api.info.title;
  main.replaceChildren(make("h1", {}, api.info.title), make("p", { className: "quiet" }, `Version ${api.info.version}, `,
    make("a", { href: "openapi.json" }, "openapi.json")), ...paragraphs(api.info.description));
  for (const { name: tag } of api.tags) {
    const list = make("ul", {});
    contents.append(make("h2", {}, tag), list);
    main.append(make("h2", {}, tag));
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, described] of Object.entries(methods)) {
        if (!(described.tags || []).includes(tag)) continue;
        list.append(make("li", {}, make("a", { href: `#${described.operationId}` }, described.summary)));
        main.append(operation(path, method, described));
      }
    }
  }
  const list = make("ul", {});
  contents.append(make("h2", {}, "Documents"), list);
  main.append(make("h2", {}, "Documents"));
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    list.append(make("li", {}, make("a", { href: `#schema-${name}` }, name)));
    main.append(make("section", {}, make("h3", { id: `schema-${name}` }, name), ...paragraphs(schema.description || ""),
      schema.properties ? fields(schema) : make("p", {}, type(schema))));
  }
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

fetch("openapi.json")
  .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(`status ${answer.status}`))))
  .then(show)
  .catch((error) => {
    document.getElementById("main").replaceChildren(make("p", {}, `openapi.json could not be shown: ${error.message}`));
  });

// The form that sends a request: its fields come from the model's JSON Schema. What is not filled in is not sent, and what is
// wrong is judged by the service alone, before anything is paid for; it stands beside the field that its pointer names.

import { $, call, get, h, put, say, words } from "./page.js";

const UNSURE = "Whether it has arrived is not known. Send it again: under the same id it is not paid for twice.";
let inputs = [], whole = false, chosen = 0, fields = 0;
const COMMON = {
  num_generations: { type: "integer", minimum: 1, maximum: 4, default: 1, description: "How many outputs; each is paid for." },
  priority: { type: "integer", minimum: 0, maximum: 9, default: 4, description: "Higher goes first." },
  deadline: { type: "string", renderType: "datetime-local", description: "Past it the request is cancelled." },
  target_namespace: { type: "string", description: "Whom the hub bills; empty: the key's own." },
  metadata: { type: "object", description: "Echoed in every event, never read." },
};

function newId() { // randomUUID is for secure origins alone
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  $("request-id").value = `page-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

function control(schema, required) {
  const options = (schema.anyOf ?? schema.oneOf ?? []).filter((option) => option.type !== "null");
  const kind = options.length === 1 ? { ...schema, ...options[0] } : schema;
  const types = [kind.type].flat().filter((name) => name !== "null");
  const type = types.length === 1 ? types[0] : undefined; // of more than one: written as JSON
  const preset = schema.default, placeholder = preset === undefined ? null : typeof preset === "string" ? preset : JSON.stringify(preset);
  if (Array.isArray(kind.enum)) {
    const unset = h("option", { value: "" }, preset === undefined ? "not set" : `default: ${preset}`);
    const node = h("select", {}, unset, ...kind.enum.map((value, index) => h("option", { value: index }, String(value))));
    return { node, read: () => (node.value === "" ? undefined : kind.enum[node.value]) };
  }
  if (type === "boolean") {
    const node = h("input", { type: "checkbox", checked: preset === true });
    let touched = required;
    node.addEventListener("change", () => { touched = true; });
    return { node, read: () => (touched ? node.checked : undefined) };
  }
  if (type === "integer" || type === "number") {
    const [min, max] = [kind.minimum ?? kind.exclusiveMinimum, kind.maximum ?? kind.exclusiveMaximum];
    const node = h("input", { type: "number", min, max, step: type === "integer" ? 1 : "any", placeholder });
    return { node, read: () => readNumber(node) };
  }
  if (type === "string") {
    const long = kind.renderType === "textarea" || (required && !kind.format);
    const moment = kind.renderType === "datetime-local";
    const node = long ? h("textarea", { rows: 3, placeholder }) : h("input", { type: moment ? kind.renderType : "text", placeholder });
    const written = () => (moment ? new Date(node.value).toISOString() : node.value);
    return { node, read: () => (node.value === "" ? undefined : written()) };
  }
  const node = h("textarea", { rows: 2, class: "json", spellcheck: "false", placeholder });
  return { node, json: true, read: () => readJson(node.value) };
}

function readNumber(node) {
  if (node.validity.badInput) throw new Error("This is no number.");
  const value = Number(node.value);
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) throw new Error("This page cannot send so large a number exactly.");
  return node.value === "" ? undefined : value;
}

function readJson(text) {
  try {
    return text.trim() === "" ? undefined : JSON.parse(text);
  } catch {
    throw new Error('This is no JSON; a text needs its "quotes".');
  }
}

function field(name, schema, required, prefix) {
  const made = control(schema ?? {}, required), id = `field-${(fields += 1)}`;
  const fault = h("p", { class: "fault", id: `${id}-fault` });
  const hint = [schema?.description, made.json ? "Written as JSON." : ""].filter(Boolean).join(" ");
  made.node.id = id;
  made.node.setAttribute("aria-describedby", `${id}-hint ${id}-fault`);
  made.node.setAttribute("aria-required", required);
  const label = h("label", { for: id }, words(name), required ? " (required)" : "");
  const lines = made.node.type === "checkbox" ? [h("div", { class: "check" }, made.node, label)] : [label, made.node];
  const box = h("div", {}, ...lines, h("p", { class: "hint", id: `${id}-hint` }, hint), fault);
  return { ...made, name, box, fault, path: `${prefix}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}` };
}

async function choose() {
  const ticket = (chosen += 1), model = $("model").value;
  try {
    const offer = await get(`v1/models/${encodeURIComponent(model)}`);
    if (ticket !== chosen) return;
    const schema = offer.input_schema ?? {}, required = new Set(schema.required ?? []), basic = new Set(schema.basic ?? []);
    const named = Object.entries(schema.properties ?? {}).sort(([, a], [, b]) => (a["x-order"] ?? 1e9) - (b["x-order"] ?? 1e9));
    inputs = named.map(([name, one]) => field(name, one, required.has(name), "/input"));
    whole = named.length === 0; // a schema that names its properties elsewhere
    if (whole) inputs = [field("input", { type: "object", description: "All parameters." }, true, "")];
    const first = inputs.filter(({ name }) => whole || basic.has(name) || required.has(name) || basic.size === 0);
    $("basic").replaceChildren(...first.map(({ box }) => box));
    $("rest").replaceChildren(...inputs.filter((one) => !first.includes(one)).map(({ box }) => box));
    $("more").hidden = first.length === inputs.length;
    put($("model-about"), offer.description ?? "");
    const told = (value) => words(typeof value === "object" ? JSON.stringify(value) : value);
    const prices = Object.entries(offer.pricing ?? {}).map(([name, value]) => `${words(name)} ${told(value)}`);
    put($("price"), `The hub's price for this model: ${prices.join(", ") || "not told"}.`);
  } catch (error) {
    put($("model-about"), `Its parameters could not be read: ${error.message}`);
  }
}

async function offer() {
  try {
    const { models } = await get("v1/models");
    $("model").replaceChildren(...models.map(({ model, name }) => h("option", { value: model }, name ? `${name} (${model})` : model)));
    await choose();
  } catch (error) {
    put($("model-about"), `The models could not be read: ${error.message}`);
  }
}

function show(faults) {
  const places = [...inputs, ...common, { path: "/request_id", node: $("request-id"), fault: $("request-id-fault") }];
  for (const { node, fault } of places) { node.removeAttribute("aria-invalid"); put(fault, ""); }
  $("form-faults").replaceChildren();
  for (const { path, message } of faults) {
    const found = places.find((one) => path === one.path || path?.startsWith(`${one.path}/`));
    if (!found) { $("form-faults").append(h("li", {}, path ? `${path}: ${message}` : message)); continue; }
    found.node.setAttribute("aria-invalid", "true");
    found.fault.append(h("span", {}, `${path === found.path ? "" : `${path}: `}${message} `));
    for (let box = found.node.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  }
  $("send").querySelector("[aria-invalid]")?.focus();
}

function read(fields, faults) {
  const values = {};
  for (const { name, path, read: value } of fields) {
    try {
      values[name] = value(); // what is undefined JSON leaves out
    } catch (error) {
      faults.push({ path, message: error.message });
    }
  }
  return values;
}

$("send").addEventListener("submit", async (event) => {
  event.preventDefault();
  const faults = [];
  const body = { ...read(common, faults), model: $("model").value, ...(whole ? read(inputs, faults) : { input: read(inputs, faults) }) };
  show(faults);
  if (faults.length) return;
  if ($("request-id").value === "") newId();
  $("submit").disabled = true;
  try {
    const headers = { "Idempotency-Key": $("request-id").value.trim() };
    const sent = await (await call("v1/generations", { method: "POST", body, headers })).json();
    say(`${sent.request_id}: sent.`);
    newId(); // only now: until it is known to have arrived, it is the same request
    location.hash = sent.request_id;
  } catch (error) {
    const faults = error.details?.length ? [...error.details] : [{ message: error.message }];
    if (!error.status || error.status >= 500) faults.push({ message: UNSURE });
    if (error.status === 409) faults.push({ path: "/request_id", message: "To send this as another request, take a new id." });
    show(faults);
  } finally {
    $("submit").disabled = false;
  }
});

const common = Object.entries(COMMON).map(([name, schema]) => field(name, schema, false, ""));
$("common").append(...common.map(({ box }) => box));
$("model").addEventListener("change", choose);
$("new-id").addEventListener("click", () => { newId(); show([]); });
$("sending").open = matchMedia("(min-width: 80rem)").matches;
newId();
offer();

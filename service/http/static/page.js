// The page: what the API tells, as it changes. Every text is set as text, never as markup: prompts, metadata and what the
// hub says may be hostile. One stream of events keeps it current; lists are read again when that stream has been away.

const PAGE = 50; // rows
const RENDER_MS = 250, FILL_MS = 5000, READY_MS = 10000, CALL_MS = 30000, HISTORY_MS = 10000;
const SILENCE_MS = 45000; // the stream's keep-alive comes every 15 s
const STATES = ["accepted", "submitting", "in_doubt", "submitted", "cancelling", "succeeded", "failed", "cancelled", "expired"];
const UNTOLD = new Set(["submitting", "in_doubt", "cancelling"]); // no event says so
const ENDED = new Set(["succeeded", "partial", "failed", "cancelled", "expired", "rejected"]);
const TONES = {
  succeeded: "good", partial: "warn", failed: "bad", rejected: "bad", expired: "bad",
  submitting: "busy", submitted: "busy", in_doubt: "warn", cancelling: "warn",
};
const COLUMNS = ["Request", "Status", "Model", "Source", "Age", "Attempts", "Outputs"];
const REQUEST_ID = /^[\w.:-]{1,128}$/;

export const $ = (id) => document.getElementById(id);

export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const say = (text) => put($("news"), text);
export const words = (text) => String(text).replaceAll("_", " ");
const tone = (status) => `chip ${TONES[status] ?? ""}`;
const at = (time) => (time ? new Date(time).toLocaleString() : null);

function age(time) {
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(time)) / 1000));
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].find(([least]) => seconds >= least) ?? [1, "s"];
  return `${Math.floor(seconds / size)} ${unit}`;
}

// -- the API ----------------------------------------------------------------------------------------------------------

class Problem extends Error {
  constructor(status, told) {
    super(told.detail ?? `The service answered ${status}.`);
    Object.assign(this, { status, details: told.details ?? [] });
  }
}

export async function call(path, { method = "GET", body, headers = {}, signal = AbortSignal.timeout(CALL_MS) } = {}) {
  const token = sessionStorage.getItem("token");
  // A header is bytes: a token that is not ASCII goes as its UTF-8.
  if (token !== null) headers = { ...headers, Authorization: `Bearer ${String.fromCharCode(...new TextEncoder().encode(token))}` };
  if (body !== undefined) headers = { ...headers, "Content-Type": "application/json" };
  const response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
  if (response.ok) return response;
  if (response.status === 401) askForToken(token !== null);
  throw new Problem(response.status, await response.json().catch(() => ({})));
}

export const get = async (path) => (await call(path)).json();

function askForToken(refused) {
  $("inside").hidden = true;
  $("forget").hidden = true;
  $("door").hidden = false;
  put($("stream"), "not connected");
  put($("refused"), refused ? "The service refused this token. Try another." : "");
  $("token").value = "";
  $("token").focus();
}

$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  location.reload();
});

$("forget").addEventListener("click", () => {
  sessionStorage.removeItem("token");
  location.reload();
});

// -- the stream -------------------------------------------------------------------------------------------------------

let last = null, seen = 0, pending = [], rendering = null;

async function* framesOf(response, onChunk = () => {}) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    onChunk();
    const frames = (text + value).split("\n\n");
    text = frames.pop();
    for (const frame of frames) {
      const fields = Object.fromEntries(frame.split("\n").map((line) => line.match(/^(\w+): (.*)$/s)?.slice(1) ?? ["", ""]));
      if (fields.data) yield { place: fields.id, event: JSON.parse(fields.data) };
    }
  }
}

async function follow() {
  for (let failures = 0; ; failures += 1) {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), SILENCE_MS);
    const heard = () => { clearTimeout(timer); timer = setTimeout(() => silence.abort(), SILENCE_MS); };
    try {
      const response = await call("v1/events", { headers: last === null ? {} : { "Last-Event-ID": last }, signal: silence.signal });
      failures = 0;
      connected(true);
      load(); // what no event told, or what was told while nobody listened
      if (opened) refresh(opened);
      for await (const { place, event } of framesOf(response, heard)) {
        last = place;
        seen += 1;
        pending.push(event);
        rendering ??= setTimeout(render, RENDER_MS);
      }
    } catch (error) {
      if (error.status === 401) return;
      if (error.status === 422) last = null;
      load();
    } finally {
      clearTimeout(timer);
    }
    connected(false);
    await new Promise((resolve) => setTimeout(resolve, Math.min(15000, 1000 * 2 ** failures) * (0.5 + Math.random() / 2)));
  }
}

function connected(live) {
  const chip = $("stream");
  const before = chip.dataset.live;
  if (before && before !== String(live)) say(live ? "Live again." : "The connection is lost; trying again.");
  chip.dataset.live = live;
  chip.className = `chip ${live ? "good" : "bad"}`;
  showSeen();
}

function showSeen() {
  put($("stream"), $("stream").dataset.live === "true" ? `live, ${seen} ${seen === 1 ? "event" : "events"}` : "not connected");
}

// -- the list ---------------------------------------------------------------------------------------------------------

const rows = new Map(); // request id: {record, tr, rank, touched, stale}
let filter = "", cursor = null, from = null, trimmed = false, loads = 0, touches = 0, filling = null, filled = 0;

async function load() {
  const ticket = (loads += 1), since = touches;
  const query = new URLSearchParams({ limit: PAGE, ...(filter && { status: filter }), ...(from && { cursor: from }) });
  try {
    const page = await get(`v1/generations?${query}`);
    if (ticket !== loads) return;
    for (const [id, row] of rows) if (row.touched <= since) rows.delete(id);
    page.generations.forEach((record, index) => keep(record, rows.get(record.request_id)?.touched ?? since, since - index / PAGE));
    [cursor, trimmed] = [page.next_cursor, false];
    $("inside").hidden = false;
    $("forget").hidden = sessionStorage.getItem("token") === null;
    draw();
  } catch (error) {
    if (error.status !== 401) say(`The requests could not be read: ${error.message}`);
  }
}

function turn(to) {
  from = to;
  rows.clear();
  return load();
}

// `rank` orders: as the list has it, and what only an event has told of above that, until the list is read again.
function keep(record, touched, rank) {
  const row = rows.get(record.request_id);
  const newest = row && row.record.sequence > record.sequence ? row.record : record;
  rows.set(record.request_id, { tr: row?.tr ?? drawn.get(record.request_id), record: newest, touched, rank, stale: true });
}

function apply(event) {
  const data = event.data, id = data?.request_id;
  if (!id) return;
  if (opened?.id === id) tell(opened, event);
  if (data.status === "rejected") return; // it is not stored, and a stored one of the same id is not touched
  const row = rows.get(id), state = data.status === "partial" ? "succeeded" : data.status;
  if (UNTOLD.has(filter) || (from === null && !row)) fill(); // whose request it is, no event says
  if (filter && state !== filter) rows.delete(id);
  else if (row || from === null) {
    touches += 1;
    keep({ ...row?.record, ...data, sequence: Number(event.sequence) }, touches, row?.rank ?? touches);
  }
}

function fill() {
  filling ??= setTimeout(() => {
    [filling, filled] = [null, Date.now()];
    if (from === null) load();
  }, Math.max(300, filled + FILL_MS - Date.now()));
}

function render() {
  rendering = null;
  const events = pending;
  pending = [];
  events.forEach(apply);
  showSeen();
  draw();
}

const drawn = new Map(); // request id: tr

function draw() {
  const order = [...rows.values()].sort((a, b) => b.rank - a.rank);
  for (const { record } of order.splice(PAGE)) trimmed = rows.delete(record.request_id);
  for (const [id, tr] of drawn) if (!rows.has(id)) drawn.delete(id) && tr.remove();
  order.forEach((row, index) => {
    row.tr ??= newRow(row.record.request_id);
    if (row.stale) drawRow(row);
    if ($("rows").children[index] !== row.tr) $("rows").insertBefore(row.tr, $("rows").children[index] ?? null);
  });
  $("nothing").hidden = order.length > 0;
  $("newest").hidden = from === null;
  $("older").hidden = cursor === null && !trimmed;
}

function newRow(id) {
  const cells = COLUMNS.map((name) => h("td", { role: "cell", "data-label": name }));
  cells[0].append(h("a", { href: `#${id}` }, id));
  cells[1].append(h("span"));
  const tr = h("tr", { role: "row", "aria-current": opened?.id === id && "true" }, ...cells);
  drawn.set(id, tr);
  return tr;
}

function drawRow(row) {
  const record = row.record, cells = row.tr.cells;
  row.stale = false;
  cells[1].firstChild.className = tone(record.status);
  put(cells[1].firstChild, words(record.status));
  put(cells[2], record.model ?? "");
  put(cells[3], record.source ?? "");
  put(cells[4], age(record.received_at));
  cells[4].title = at(record.received_at);
  put(cells[5], String(record.attempts));
  put(cells[6], summary(record));
}

function summary(record) {
  const count = (status) => record.outputs.filter((output) => output.status === status).length;
  if (!record.outputs.length) return "none yet";
  const failed = count("failed");
  return `${count("succeeded")} of ${record.num_generations ?? record.outputs.length}${failed ? `, ${failed} failed` : ""}`;
}

COLUMNS.forEach((name) => $("columns").append(h("th", { role: "columnheader", scope: "col" }, name)));
[["", "all"], ...STATES.map((state) => [state, words(state)])].forEach(([value, text]) => $("filter").append(h("option", { value }, text)));
$("filter").addEventListener("change", () => { filter = $("filter").value; turn(null); });
$("newest").addEventListener("click", () => turn(null));
$("older").addEventListener("click", async () => {
  if (from === null && trimmed) await load(); // the cursor belongs to what is shown now
  if (cursor !== null) await turn(cursor);
  $("list-heading").focus();
});

// -- one request ------------------------------------------------------------------------------------------------------

let opened = null;

function open() {
  const id = location.hash.slice(1); // it has no character that is escaped there
  opened?.reading.abort();
  drawn.get(opened?.id)?.removeAttribute("aria-current");
  opened = null;
  if (REQUEST_ID.test(id)) opened = { id, record: null, fault: "", events: new Map(), outputs: new Map(), reading: new AbortController() };
  $("detail").hidden = opened === null;
  if (opened === null) return;
  drawn.get(id)?.setAttribute("aria-current", "true");
  $("outputs").replaceChildren();
  drawDetail(opened);
  $("detail-heading").focus();
  const one = opened;
  refresh(one).then(() => one.record && readPast(one)).catch(() => {}); // a past that cannot be read is not shown
}

async function refresh(one) {
  try {
    const before = one.record?.status;
    one.record = await get(`v1/generations/${one.id}`);
    one.fault = "";
    if (opened === one && before && before !== one.record.status) say(`${one.id}: ${words(one.record.status)}`);
  } catch (error) {
    one.fault = error.status === 404 ? "It is not stored: still on the bus, not accepted, or past its retention." : error.message;
  }
  if (opened === one) drawDetail(one);
}

async function readPast(one) {
  const signal = AbortSignal.any([one.reading.signal, AbortSignal.timeout(HISTORY_MS)]);
  for await (const { event } of framesOf(await call(`v1/events?request_id=${one.id}`, { signal }))) {
    tell(one, event);
    if (Number(event.sequence) >= one.record.sequence) break; // what comes after it, the one stream tells
  }
  one.reading.abort();
}

function tell(one, event) {
  if (one.events.has(event.id)) return;
  one.events.set(event.id, event);
  if (event.data.status === "rejected") one.rejected = event.data;
  if (opened === one) drawDetail(one);
  if (Number(event.sequence) <= (one.record?.sequence ?? 0)) return;
  one.refreshing ??= setTimeout(() => {
    one.refreshing = null;
    refresh(one);
  }, RENDER_MS);
}

function drawDetail(one) {
  const record = one.record ?? one.rejected ?? {};
  put($("detail-heading"), one.id);
  const state = record.status ? h("span", { class: tone(record.status) }, words(record.status)) : one.fault || "Reading it.";
  $("detail-state").replaceChildren(state);
  $("detail-error").replaceChildren(...faultOf(record.error));
  $("cancel").hidden = !record.status || ENDED.has(record.status) || record.status === "cancelling";
  (record.outputs ?? []).forEach((output) => drawOutput(one, output));
  const facts = [
    ["Model", record.model], ["Source", record.source], ["Received", at(record.received_at)], ["Submitted", at(record.submitted_at)],
    ["Finished", at(record.finished_at)], ["Deadline", at(record.deadline)], ["Attempts", record.attempts],
    ["Outputs asked", record.num_generations], ["Seed", record.seed], ["Priority", record.priority], ["Namespace", record.target_namespace],
    ["Metadata", record.metadata && h("pre", {}, JSON.stringify(record.metadata, null, 2))],
  ].filter(([, value]) => value !== undefined && value !== null);
  const told = (value) => (value instanceof Node ? value : String(value));
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, told(value))]));
  const events = [...one.events.values()].sort((a, b) => Number(a.sequence) - Number(b.sequence));
  $("events").replaceChildren(...events.map((event) => h("li", {},
    h("time", { datetime: event.time, title: event.time }, new Date(event.time).toLocaleTimeString()),
    h("span", {}, String(event.type).replace(/^drover\.|\.v1$/g, "")), h("span", { class: "fault" }, event.data.error?.code ?? ""))));
}

function faultOf(error) {
  if (!error) return [];
  const details = (error.details ?? []).map((detail) => h("li", {}, `${detail.path ?? ""} ${detail.message ?? JSON.stringify(detail)}`));
  return [h("strong", {}, words(error.code)), ` ${error.message}`, ...(details.length ? [h("ul", {}, ...details)] : [])];
}

function drawOutput(one, output) {
  const told = JSON.stringify(output), before = one.outputs.get(output.index);
  if (before?.told === told) return; // a video goes on playing
  const link = safeLink(output.url), name = `Output ${output.index + 1}`;
  const shown = link ? [preview(output, link, name), h("a", { href: link, target: "_blank", rel: "noopener noreferrer" }, `Open ${name}`)] : [];
  const li = h("li", {}, h("strong", {}, `${name} `), h("span", { class: tone(output.status) }, words(output.status)), ...shown,
    h("p", { class: "fault" }, ...faultOf(output.error)),
    h("p", { class: "hint" }, [output.media_type, output.generation_id].filter(Boolean).join(", ")));
  if (before) before.li.replaceWith(li);
  else $("outputs").append(li);
  one.outputs.set(output.index, { told, li });
}

function safeLink(url) {
  return url && URL.canParse(url) && ["http:", "https:"].includes(new URL(url).protocol) ? url : null;
}

function preview(output, src, name) {
  const kind = String(output.media_type).split("/")[0];
  if (kind !== "image" && kind !== "video") return null;
  const shown = kind === "image" ? h("img", { alt: name, src }) : h("video", { controls: true, preload: "metadata", "aria-label": name, src });
  const none = "No preview: the link may have expired, or its host is not one that this page shows.";
  shown.addEventListener("error", () => shown.replaceWith(h("p", { class: "hint" }, none)));
  return shown;
}

function close() {
  const link = drawn.get(opened?.id)?.querySelector("a");
  location.hash = "";
  (link ?? $("list-heading")).focus();
}

$("close").addEventListener("click", close);
$("detail").addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
addEventListener("hashchange", open);

$("cancel").addEventListener("click", () => {
  put($("confirm-text"), `Cancel ${opened.id}? What the hub has finished by then stays, and is paid for.`);
  $("confirm").showModal();
});
$("confirm-no").addEventListener("click", () => $("confirm").close());
$("confirm-yes").addEventListener("click", async () => {
  const one = opened;
  $("confirm").close();
  try {
    await call(`v1/generations/${one.id}`, { method: "DELETE" });
    say(`${one.id}: asked to cancel.`);
    setTimeout(refresh, 1000, one); // that it is being cancelled, no event says
  } catch (error) {
    say(`${one.id} was not cancelled: ${error.message}`);
  }
});

// -- the whole --------------------------------------------------------------------------------------------------------

async function readiness() {
  if (document.hidden) return;
  let told = null;
  try {
    told = await (await fetch("readyz", { signal: AbortSignal.timeout(CALL_MS) })).json();
  } catch { /* it says so itself: not reachable */ }
  const chips = told === null ? [["not reachable", "bad"]] : [
    [told.status, told.status === "ready" ? "good" : "bad"],
    ...Object.entries(told.reasons ?? {}).map(([part, reason]) => [`${part}: ${reason}`, "bad"]),
    [told.leading ? "leads" : "does not lead", ""],
    [`publishing: ${told.publishing}`, told.publishing === "open" ? "good" : "bad"],
  ];
  $("replica").replaceChildren(...chips.map(([text, kind]) => h("li", { class: `chip ${kind}` }, text)));
  const paused = told?.paused ?? [];
  $("paused").hidden = paused.length === 0;
  const line = (one) => `Submission is paused (${one.scope}) for ${Math.round(one.for_s)} s: ${words(one.reason)}. ${one.remedy ?? ""}`;
  $("paused").replaceChildren(...paused.map((one) => h("li", {}, line(one))));
}

readiness();
setInterval(readiness, READY_MS);
document.addEventListener("visibilitychange", readiness);
setInterval(() => { for (const { tr, record } of rows.values()) if (tr) put(tr.cells[4], age(record.received_at)); }, 1000);
follow();
if (location.hash) open();

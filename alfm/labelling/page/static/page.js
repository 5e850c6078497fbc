// The page: shows items, takes keys, and tells the server. What a person says is shown at once and confirmed after; what
// is not confirmed is taken back and said so. Texts of items are only ever set as text.

const CHUNK = 60;      // tiles that are added to the grid at once
const AHEAD = 8;       // items whose pictures are ready before they are asked for
const WATCH = 1000;    // milliseconds between questions whether something changed
const RETRY = [300, 1000, 2000];

const $ = (id) => document.getElementById(id);

function el(tag, props = {}, ...children) {
  const made = Object.assign(document.createElement(tag), props);
  made.append(...children);
  return made;
}

const desk = {
  hello: null, by: "", standing: null, version: -1,
  items: new Map(),     // row -> item, as the server said it last and with what was said here since
  queue: [],            // rows that are asked next
  line: [], at: -1,     // rows shown one by one so far, and which of them is shown
  view: "one",
  rows: [], drawn: 0, focus: -1, chosen: new Set(), like: [], notes: {},   // the grid
};

// ---- the server -----------------------------------------------------------------------------------------------------

async function ask(path, body) {
  const options = { headers: {}, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    options.headers = { "content-type": "application/json", "x-alfm-secret": desk.hello?.secret ?? "" };
  }
  const answer = await fetch(path, options);
  let found = {};
  try { found = await answer.json(); } catch { found = { error: `The server failed (${answer.status}): see its terminal.` }; }
  return { status: answer.status, ...found };
}

async function read(path) {
  const found = await ask(path);
  if (found.status !== 200) throw new Error(found.error);
  return found;
}

const outbox = [];      // gestures that the server has not confirmed: { acts, by, changes: [[item before, item after]] }
let sending = false;

function pending(row) {
  return outbox.some((gesture) => gesture.acts.some((act) => act.row === row));
}

async function flush() {
  if (sending) return;
  sending = true;
  for (let tries = 0; outbox.length;) {
    const gesture = outbox[0];
    for (const act of gesture.acts) act.revision ??= desk.items.get(act.row).revision;
    let answer;
    try {
      answer = await ask("/api/acts", { by: gesture.by, acts: gesture.acts });
    } catch {           // nobody there: the same acts again, which count once whatever became of the first try
      notice("silent", `The server does not answer. What you said is kept here and sent again (${outbox.length} waiting).`, "bad");
      await new Promise((done) => setTimeout(done, RETRY[Math.min(tries++, RETRY.length - 1)]));
      continue;
    }
    tries = 0;
    unnotice("silent");
    outbox.shift();
    if (answer.status === 200 || answer.status === 409) {
      for (const item of answer.items) if (!pending(item.row)) desk.items.set(item.row, item); else keepRevision(item);
      take(answer);
      if (answer.status === 409) failed(gesture, answer.error);
    } else {
      for (const [before, after] of gesture.changes) takeBack(before, after);
      failed(gesture, answer.error ?? "The server refused it.");
    }
    soon();
  }
  sending = false;
}

// The server's word on an item, unless something newer is known or said here.
function learn(item) {
  const known = desk.items.get(item.row);
  if (!pending(item.row) && !(known && known.revision > item.revision)) desk.items.set(item.row, item);
}

function keepRevision(item) {
  desk.items.get(item.row).revision = item.revision;
}

function takeBack(before, after) {
  count(after, before);
  desk.items.set(before.row, { ...before, revision: desk.items.get(before.row).revision });
  desk.version = -1;    // what can be undone is the server's to say
}

// What was not stored: later acts about the same items go with it, and the first of them is shown again.
function failed(gesture, sentence) {
  const rows = new Set(gesture.acts.map((act) => act.row));
  for (let i = outbox.length - 1; i >= 0; i--) {
    if (outbox[i].acts.some((act) => rows.has(act.row))) {
      for (const [before, after] of outbox.splice(i, 1)[0].changes) takeBack(before, after);
    }
  }
  const row = gesture.acts[0].row;
  notice(`failed ${row}`, sentence, "bad", "Show it", () => { setView("one"); show(row); });
  if (desk.view === "one") show(row);
}

function notice(key, sentence, kind = "", action = null, act = null) {
  unnotice(key);
  const box = el("div", { className: `notice ${kind}` }, el("span", { textContent: sentence }));
  box.dataset.key = key;
  if (action) box.append(el("button", { type: "button", textContent: action, onclick: () => { unnotice(key); act(); } }));
  box.append(el("button", { type: "button", textContent: "Close", onclick: () => unnotice(key) }));
  $("notices").append(box);
  while ($("notices").children.length > 3) $("notices").firstChild.remove();
}

function unnotice(key) {
  for (const box of [...$("notices").children]) if (box.dataset.key === key) box.remove();
}

// The server's word on how things stand. Items that wait for a confirmation stay as they are shown.
function take(found) {
  if (found.version === undefined || found.version < desk.version) return;   // overtaken by a later answer
  desk.version = found.version;
  if (!found.classes) return;
  const first = desk.standing === null;
  desk.standing = found;
  for (const gesture of outbox) gesture.acts.forEach((act, index) => noted(act, ...gesture.changes[index]));
  found.queue.forEach(learn);
  desk.queue = found.queue.map((item) => item.row);
  found.trouble.forEach((sentence) => {
    if (desk.trouble !== sentence) notice("trouble", sentence);
    desk.trouble = sentence;
  });
  const behind = desk.line.slice(0, desk.at + 1);
  const seen = new Set(behind);
  desk.line = [...behind, ...desk.queue.filter((row) => !seen.has(row))];
  if (desk.view === "one" && (desk.at < 0 || desk.at >= desk.line.length)) forward();
  if (desk.view === "grid" && (first || (asksNext() && !desk.rows.length && desk.queue.length))) fillGrid();   // it was chosen sooner
  prepare();
}

async function watch() {
  try {
    const found = await ask(`/api/standing?version=${desk.version}&by=${encodeURIComponent(desk.by)}`);
    unnotice("gone");
    if (found.status !== 200) notice("gone", found.error, "bad");
    else if (found.classes) {
      take(found);
      await refreshShown();
      renderAll();
    } else if (desk.standing?.busy) renderAsked();
  } catch {
    if (!outbox.length) notice("gone", "The server does not answer: start the command again, and open the address it prints.", "bad");
  }
  setTimeout(watch, document.hidden ? 5 * WATCH : WATCH);
}

// Suggestions and other people's labels of what is on the screen.
async function refreshShown() {
  const rows = new Set(desk.view === "grid" ? desk.rows.slice(0, desk.drawn) : [current()]);
  const wanted = [...rows].filter((row) => row !== undefined && !pending(row)).slice(0, 400);
  if (wanted.length) await fetchItems(wanted);
}

async function fetchItems(rows) {
  const found = await read(`/api/items?rows=${rows.join(",")}`);
  for (const item of found.items) {
    learn({ ...item, purpose: desk.items.get(item.row)?.purpose ?? item.purpose });
  }
}

// ---- what a person says ---------------------------------------------------------------------------------------------

const split = (item) => item.label === null && Object.keys(item.votes).length > 0;
// Nothing is asked of this annotator: votes of others that tie leave a word to say.
const answered = (item) => item.skipped || item.label !== null || Object.hasOwn(item.votes, desk.by);

function applied(item, act, label) {
  const votes = Object.assign(Object.create(null), item.votes);   // names such as "constructor" are names
  const now = { ...item, votes, skipped: act === "skip" };
  delete votes[desk.by];
  if (act === "label") votes[desk.by] = label;
  if (act === "reject") now.rejected = [...item.rejected, label];
  const counts = Object.create(null);
  for (const name of Object.values(votes)) counts[name] = (counts[name] ?? 0) + 1;
  const most = Math.max(0, ...Object.values(counts));
  const first = Object.keys(counts).filter((name) => counts[name] === most);
  now.label = first.length === 1 ? first[0] : null;
  return now;
}

function say(rows, act, label = null, undo = false) {
  rows = rows.filter((row) => desk.items.has(row));
  if (!rows.length) return;
  const changes = [];
  const acts = rows.map((row, index) => ({
    id: crypto.randomUUID?.() ?? uuid(), act, row, label: Array.isArray(label) ? label[index] : label,
    batch: desk.standing.batch?.round ?? null, undo,
  }));
  for (const one of acts) {
    const item = desk.items.get(one.row);
    const now = applied(item, act, one.label);
    if (!pending(one.row)) one.revision = item.revision;
    desk.items.set(one.row, now);
    changes.push([item, now]);
    noted(one, item, now);
  }
  outbox.push({ acts, by: desk.by, changes });
  flush();
}

// What is not confirmed yet counts as said: in the balance, and for undoing.
function noted(act, before, now) {
  count(before, now);
  const { undo } = desk.standing;
  if (!act.undo) undo.push({ row: act.row, before: mine(before) });
  else {
    const last = undo.findLastIndex((one) => one.row === act.row);
    if (last >= 0) undo.splice(last, 1);
  }
}

// Where the page is not opened at an address of this machine, browsers offer no randomUUID.
function uuid() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function mine(item) {
  if (Object.hasOwn(item.votes, desk.by)) return { act: "label", label: item.votes[desk.by] };
  return { act: item.skipped ? "skip" : "clear", label: null };
}

// How many items a class has.
function tally(name) {
  const { balance } = desk.standing;
  return Object.hasOwn(balance, name) ? balance[name] : 0;
}

function count(before, now) {
  const { balance } = desk.standing;
  if (before.label !== null && Object.hasOwn(balance, before.label)) balance[before.label]--;
  if (now.label !== null) balance[now.label] = tally(now.label) + 1;
  desk.standing.labelled += (now.label !== null) - (before.label !== null);
  if (now.label !== null && !desk.standing.classes.includes(now.label)) desk.standing.classes.push(now.label);
}

// Labels what is shown or chosen, and goes on.
function answer(act, label = null, twins = false) {
  if (desk.view === "grid") {
    const rows = desk.chosen.size ? [...desk.chosen] : [desk.focus].filter((row) => row >= 0);
    accept(rows, act, label);
    desk.chosen.clear();
    moveTile(1, false);
    renderGrid();
  } else {
    const row = current();
    if (row === undefined) return;
    accept(twins ? [row, ...desk.twins] : [row], act, label);
    forward();
  }
  renderBar();
  soon();
}

function accept(rows, act, label) {
  if (act !== "accept") return say(rows, act, label);
  rows = rows.filter((row) => desk.items.get(row)?.suggestion);
  say(rows, "label", rows.map((row) => desk.items.get(row).suggestion));
}

function undo() {
  const last = desk.standing?.undo.at(-1);
  if (!last || undo.busy) return;
  undo.busy = true;
  const back = async () => {
    if (!desk.items.has(last.row)) await fetchItems([last.row]);
    say([last.row], last.before.act, last.before.label, true);
    if (desk.view === "one") show(last.row);
    renderAll();
  };
  back().catch((error) => notice("undo", error.message, "bad")).finally(() => { undo.busy = false; });
}

// ---- one by one -----------------------------------------------------------------------------------------------------

const current = () => desk.line[desk.at];

const pictures = new Map();      // row -> an element that shows the item, ready to be put on the stage

function face(row, side) {
  const item = desk.items.get(row);
  const { modality, pool, unseen } = desk.hello;
  if (unseen || !modality) return el("div", { className: "id", textContent: item.id });
  if (modality === "text") return el("div", { className: "text", textContent: item.text + (item.cut ? " …" : "") });
  if (modality === "audio") {
    const sound = el("audio", { controls: true, preload: "auto", src: `/item/${row}/sound?of=${pool}` });
    sound.onerror = () => sound.replaceWith(gone(row));
    return sound;
  }
  const image = el("img", { src: `/item/${row}/image/${side}?of=${pool}`, alt: `Item ${item.id}`, draggable: false, decoding: "sync" });
  image.onerror = () => image.replaceWith(gone(row));
  image.onload = () => image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= 64);
  return image;
}

// Why an item is not shown: the server's sentence.
function gone(row) {
  const box = el("div", { className: "calm", textContent: "This item cannot be shown." });
  const path = desk.hello.modality === "audio" ? `/item/${row}/sound` : `/item/${row}/image/${desk.hello.sides[1]}`;
  fetch(path).then((answer) => answer.json()).then((found) => { box.textContent = found.error; }).catch(() => {});
  return box;
}

function prepare() {
  const near = desk.line.slice(Math.max(0, desk.at - 3), desk.at + 1 + AHEAD);
  for (const row of near) {
    if (pictures.has(row) || !desk.items.has(row)) continue;
    const made = face(row, desk.hello.sides[2]);
    pictures.set(row, made);
    made.decode?.().catch(() => {});
  }
  if (pictures.size > 60) for (const row of [...pictures.keys()].slice(0, 30)) if (!near.includes(row)) pictures.delete(row);
}

// To the next item that nobody has answered.
function forward() {
  let next = desk.at + 1;
  while (next < desk.line.length && answered(desk.items.get(desk.line[next]))) next++;
  if (next >= desk.line.length) {      // passed over before: once more
    const left = desk.queue.filter((row) => row !== current() && !answered(desk.items.get(row)));
    desk.line.push(...left);
    if (!left.length && current() !== undefined && !answered(desk.items.get(current()))) next = desk.at;
  }
  desk.at = Math.min(next, desk.line.length);
  renderOne();
  prepare();
}

function show(row) {
  const found = desk.line.lastIndexOf(row);
  if (found >= 0) desk.at = found;
  else {
    desk.at = Math.max(0, Math.min(desk.at, desk.line.length));
    desk.line.splice(desk.at, 0, row);
  }
  renderOne();
  prepare();
}

function step(by) {
  const to = desk.at + by;
  if (by > 0) return forward();
  if (to < 0) return;
  desk.at = to;
  renderOne();
  prepare();
}

let shown = null;

function renderOne() {
  if (desk.view !== "one") return;
  const row = current();
  const stage = $("stage");
  if (row === undefined) {
    stage.replaceChildren(el("p", { className: "calm", textContent: idle() }));
    shown = null;
    for (const id of ["purpose", "name", "model"]) $(id).replaceChildren();
    $("twins").hidden = true;
    renderBar();
    return;
  }
  const item = desk.items.get(row);
  if (shown !== row) {
    const made = pictures.get(row) ?? face(row, desk.hello.sides[2]);
    pictures.set(row, made);
    stage.replaceChildren(made);
    stage.scrollTop = 0;
    if (made.tagName === "AUDIO") { made.currentTime = 0; made.play().catch(() => {}); }
    shown = row;
    desk.twins = [];
    $("twins").hidden = true;
    lookForTwins(row);
  } else renderTwins();
  renderPurpose(item);
  $("name").textContent = item.id;
  const model = $("model");
  model.replaceChildren();
  if (answered(item) || split(item)) model.append(said(item));
  else if (item.suggestion !== null) {
    model.append("The model says ", el("b", { textContent: item.suggestion }), meter(item.confidence), percent(item.confidence));
  } else model.append(desk.standing.classes.length ? "No suggestion yet" : "Type the name of a class to begin");
  renderBar();
}

function idle() {
  const { busy, exhausted, labelled, pool } = desk.standing;
  if (exhausted || labelled >= pool) return "Nothing is left to ask: all items are labelled or skipped.";
  if (busy) return "The next batch is being made.";
  return "Nothing is asked at this moment.";
}

function said(item) {
  if (item.skipped) return "Skipped: nobody can tell";
  const votes = Object.entries(item.votes).map(([who, name]) => `${who}: ${name}`).join(", ");
  if (item.label === null) return `Votes tie (${votes})`;
  const box = el("span", {}, "Labelled ", el("b", { textContent: item.label }));
  if (Object.keys(item.votes).some((who) => who !== desk.by)) box.append(` (${votes})`);
  return box;
}

const percent = (share) => `${Math.floor(100 * share)} %`;
const width = (share) => `${100 * share}%`;

function meter(share) {
  const inner = el("i");
  inner.style.width = width(share);
  return el("span", { className: "sure" }, inner);
}

function renderPurpose(item) {
  const box = $("purpose");
  box.replaceChildren();
  const { batch, strategy } = desk.standing;
  const unsure = item.suggestion === null ? "" : ` The model is ${percent(item.confidence)} sure.`;
  if (item.purpose === "pick" && batch) {
    box.append(el("b", { textContent: `Batch ${batch.round}` }), `, ${batch.n - batch.left + (batch.left > 0)} of ${batch.n}, picked by ${strategy}.${unsure}`);
  } else if (item.purpose === "audit") {
    box.append(el("b", { className: "audit", textContent: "Audit" }), ": drawn at random to measure with; the model does not learn from it.");
  } else if (item.purpose === "random") {
    box.append(el("b", { textContent: "Random" }), ": drawn while the next batch is being made; the model learns from it.");
  } else box.append(el("b", { textContent: "Your choice" }), `: not asked for.${unsure}`);
}

let looking = 0;

function lookForTwins(row) {
  clearTimeout(looking);
  looking = setTimeout(async () => {
    try {
      const found = await read(`/api/duplicates/${row}`);
      if (current() !== row || desk.view !== "one") return;
      found.items.forEach(learn);
      desk.twins = found.items.map((item) => item.row).filter((other) => !answered(desk.items.get(other)));
      renderTwins();
    } catch { /* it is an offer, no more */ }
  }, 150);
}

function renderTwins() {
  const { twins } = desk;
  $("twins").hidden = !twins.length;
  if (!twins.length) return;
  $("twins-say").textContent = twins.length === 1 ? "1 near duplicate" : `${twins.length} near duplicates`;
  const suggestion = desk.items.get(current()).suggestion;
  $("twins-go").hidden = suggestion === null;
  $("twins-go").textContent = `All: ${suggestion}`;
  if (renderTwins.drawn !== twins.join()) $("twins-strip").replaceChildren(...twins.slice(0, 24).map(small));
  renderTwins.drawn = twins.join();
}

function small(row) {
  const item = desk.items.get(row);
  const button = el("button", { type: "button", title: item.id });
  button.ariaLabel = `Show item ${item.id}`;
  if (desk.hello.modality === "image" && !desk.hello.unseen) {
    button.append(el("img", { src: `/item/${row}/image/${desk.hello.sides[0]}?of=${desk.hello.pool}`, alt: "", loading: "lazy" }));
  } else button.append(el("span", { textContent: (item.text ?? item.id).slice(0, 40) }));
  button.onclick = () => { setView("one"); show(row); };
  return button;
}

// ---- the grid -------------------------------------------------------------------------------------------------------

// Whether the grid shows what is asked next, which needs no question to the server.
const asksNext = () => $("which").value === "queue" && !$("words").value && !$("of").value;

async function fillGrid() {
  if (!desk.standing) return;    // the server's first word fills it
  const which = $("which").value;
  const mark = fillGrid.mark = {};
  let rows;
  let notes = {};
  if (asksNext()) rows = [...desk.queue];
  else {
    const like = which === "like" || which === "varied";
    const query = new URLSearchParams({ which: which === "queue" ? "unlabelled" : which, sort: $("sort").value, words: $("words").value, label: $("of").value });
    if (like) query.set("rows", desk.like.join(","));
    $("total").textContent = "Looking …";
    try {
      ({ rows, notes } = await read(`/api/list?${query}`));
    } catch (error) {
      rows = [];
      notice("grid", error.message, "bad");
    }
  }
  if (fillGrid.mark !== mark) return;
  Object.assign(desk, { rows, notes });
  desk.drawn = 0;
  desk.chosen.clear();
  desk.focus = rows[0] ?? -1;
  $("tiles").replaceChildren();
  await drawMore();
  renderGrid();
}

async function drawMore() {
  const rows = desk.rows.slice(desk.drawn, desk.drawn + CHUNK);
  if (!rows.length || drawMore.busy) return;
  drawMore.busy = true;
  const list = desk.rows;
  try {
    await fetchItems(rows);
    if (list === desk.rows) {
      desk.drawn += rows.length;
      $("tiles").append(...rows.map(tile));
    }
  } catch (error) {
    notice("grid", error.message, "bad");
  } finally {
    drawMore.busy = false;
  }
  if (list !== desk.rows) await drawMore();   // another list was chosen meanwhile
}

function tile(row) {
  const box = el("div", { className: "tile", id: `tile-${row}` });
  box.setAttribute("role", "option");
  box.dataset.row = row;
  const inside = el("div", { className: "face" });
  const { modality, unseen } = desk.hello;
  const item = desk.items.get(row);
  if (modality === "text" && !unseen) inside.textContent = item.text.slice(0, 400);
  else if (modality === "audio" && !unseen) {
    inside.append(el("audio", { controls: true, preload: "none", src: `/item/${row}/sound?of=${desk.hello.pool}` }));
  } else if (modality === "image" && !unseen) {
    const image = face(row, desk.hello.sides[0]);
    image.loading = "lazy";
    inside.append(image);
  } else inside.append(el("span", { textContent: item.id }));
  box.append(inside, el("div", { className: "foot" }), el("div", { className: "tick", textContent: "✓" }));
  dress(box, row);
  return box;
}

function dress(box, row) {
  const item = desk.items.get(row);
  const foot = box.querySelector(".foot");
  foot.replaceChildren();
  const text = item.skipped ? "skipped" : item.label ?? (split(item) ? "votes tie" : item.suggestion);
  if (text !== null) foot.append(el("span", { className: `chip ${item.label !== null ? "said" : ""}`, textContent: text, title: text }));
  if (item.confidence !== null && !answered(item)) foot.append(el("small", { textContent: percent(item.confidence) }));
  if (row in desk.notes) foot.append(el("small", { className: "note", textContent: desk.notes[row] }));
  else if (item.label !== null && item.suggestion !== null && item.suggestion !== item.label) {
    foot.append(el("small", { textContent: `model: ${item.suggestion}` }));
  }
  box.setAttribute("aria-selected", desk.chosen.has(row));
  box.setAttribute("aria-label", `${item.id}: ${text ?? "no label"}`);
  box.tabIndex = row === desk.focus ? 0 : -1;
}

function renderGrid() {
  if (desk.view !== "grid") return;
  for (const box of $("tiles").children) dress(box, Number(box.dataset.row));
  const { length } = desk.rows;
  $("total").textContent = length === 1 ? "1 item" : `${length} items`;
  $("renew").hidden = $("which").value === "queue" && desk.rows.join() === desk.queue.join();
  const n = desk.chosen.size;
  $("chosen").hidden = false;
  $("chosen-say").textContent = n ? `${n} chosen: a key or a class labels them all` : "Click to choose many; a key labels the one in focus";
  $("none").disabled = $("like").disabled = $("varied").disabled = !n;
  renderBar();
}

function choose(row, event) {
  const at = desk.rows.indexOf(row);
  if (event.shiftKey && desk.focus >= 0) {
    const from = desk.rows.indexOf(desk.focus);
    for (const other of desk.rows.slice(Math.min(at, from), Math.max(at, from) + 1)) desk.chosen.add(other);
  } else if (desk.chosen.has(row)) desk.chosen.delete(row);
  else desk.chosen.add(row);
  desk.focus = row;
  renderGrid();
  $(`tile-${row}`)?.focus({ preventScroll: true });
}

function moveTile(by, extend) {
  const to = desk.rows.indexOf(desk.focus) + by;
  if (to < 0 || to >= desk.drawn) return;
  if (extend) desk.chosen.add(desk.focus).add(desk.rows[to]);
  desk.focus = desk.rows[to];
  renderGrid();
  const box = $(`tile-${desk.focus}`);
  box?.focus({ preventScroll: true });
  box?.scrollIntoView({ block: "nearest" });
}

const columns = () => getComputedStyle($("tiles")).gridTemplateColumns.split(" ").length;

function moreLike(which) {
  desk.like = [...desk.chosen];
  for (const option of $("which").options) if (["like", "varied"].includes(option.value)) option.hidden = false;
  $("which").value = which;
  fillGrid();
}

function setView(view) {
  if (view === desk.view) return;
  desk.view = view;
  $("one").hidden = view !== "one";
  $("grid").hidden = view !== "grid";
  $("chosen").hidden = view !== "grid";
  $("view-one").setAttribute("aria-pressed", view === "one");
  $("view-grid").setAttribute("aria-pressed", view === "grid");
  shown = null;
  if (view === "grid") fillGrid();
  else {
    for (const sound of $("tiles").querySelectorAll("audio")) sound.pause();
    if (desk.at < 0 || current() === undefined) forward(); else renderOne();
    $("stage").focus({ preventScroll: true });
  }
}

// ---- beside the items -----------------------------------------------------------------------------------------------

// What a confirmation changes is drawn when there is nothing more urgent: the next key is.
let drawing = 0;

function soon() {
  drawing ||= setTimeout(() => { drawing = 0; renderAll(); }, 60);
}

function renderAll() {
  if (!desk.standing) return;
  renderOne();
  renderGrid();
  renderAsked();
  renderBalance();
  renderGood();
}

function renderAsked() {
  const { batch, busy, strategy, why, labelled, pool, skipped } = desk.standing;
  $("done").textContent = `${labelled} of ${pool} labelled${skipped ? `, ${skipped} skipped` : ""}`;
  $("batch-bar").firstElementChild.style.width = batch ? width(1 - batch.left / Math.max(batch.n, 1)) : "0";
  const making = busy?.with === "batch" ? "The next batch is being made." : "";
  $("batch-say").textContent = batch && batch.left ? `Batch ${batch.round}: ${batch.left} of ${batch.n} left` : making || idle();
  $("why").textContent = `${strategy}: ${why}`;
  const ahead = desk.line.slice(desk.at + 1).filter((row) => !answered(desk.items.get(row))).slice(0, 6);
  if (renderAsked.drawn !== ahead.join()) $("ahead").replaceChildren(...ahead.map(small));
  renderAsked.drawn = ahead.join();
  $("undo").disabled = !desk.standing.undo.length;
}

function renderBalance() {
  const { classes, balance } = desk.standing;
  const most = Math.max(1, ...Object.values(balance));
  $("balance").replaceChildren(...classes.map((name) => {
    const bar = el("i");
    bar.style.width = width(tally(name) / most);
    const button = el("button", { type: "button", title: `Show ${name}` }, el("span", { textContent: name }), el("div", { className: "bar" }, bar), el("b", { textContent: tally(name) }));
    button.onclick = () => { $("of").value = name; $("which").value = "labelled"; if (desk.view === "grid") fillGrid(); else setView("grid"); };
    return el("li", {}, button);
  }));
  if (!classes.length) $("balance").append(el("li", { className: "quiet", textContent: "None yet. Type a name to make the first." }));
  const names = classes.join("\n");
  if (renderBalance.names === names) return;
  renderBalance.names = names;
  const kept = $("of").value;
  $("of").replaceChildren(el("option", { value: "", textContent: "any class" }), ...classes.map((name) => el("option", { value: name, textContent: name })));
  $("of").value = classes.includes(kept) ? kept : "";
  $("olds").replaceChildren(...classes.map((name) => el("option", { value: name, textContent: name })));
}

function renderGood() {
  const { lamps = [], audit = null } = desk.standing.measured;
  $("lamps").replaceChildren(...lamps.map((lamp) => {
    const words = el("div", { textContent: lamp.name }, el("small", { textContent: lamp.sentence }));
    return el("li", { className: lamp.state }, el("i"), words);
  }));
  $("audit").textContent = audit ?? "";
  $("audit-start").hidden = desk.standing.audit.items > 0;
}

function renderBar() {
  if (!desk.standing) return;
  const { classes } = desk.standing;
  const item = desk.view === "one" ? desk.items.get(current()) : desk.items.get(desk.focus);
  const key = JSON.stringify([classes, item?.suggestion, item?.label, item && answered(item)]);
  if (renderBar.key === key) return;
  renderBar.key = key;
  const shownNames = classes.slice(0, 24);
  const buttons = shownNames.map((name, index) => {
    const button = el("button", { type: "button", title: name });
    if (index < 9) button.append(el("kbd", { textContent: index + 1 }));
    button.append(el("span", { textContent: name }));
    if (item && item.label === name) button.className = "said";
    else if (item && !answered(item) && item.suggestion === name) button.className = "suggested";
    button.onclick = (event) => { answer("label", name); back(event); };
    return button;
  });
  const other = el("button", { type: "button", className: "other", textContent: classes.length > 24 ? `Any of ${classes.length}, or new …` : "Other …" });
  other.onclick = () => openPalette("");
  const skip = el("button", { type: "button", className: "other" }, el("kbd", { textContent: "Space" }), el("span", { textContent: "Cannot tell" }));
  skip.onclick = (event) => { answer("skip"); back(event); };
  $("classes").replaceChildren(...buttons, other, skip);
}

// After a click the keys are for the item again, not for the button.
function back(event) {
  if (event.detail) (desk.view === "one" ? $("stage") : $(`tile-${desk.focus}`))?.focus({ preventScroll: true });
}

// ---- type ahead -----------------------------------------------------------------------------------------------------

const palette = { options: [], at: 0 };

function openPalette(text) {
  $("typed").value = text;
  palette.at = 0;
  listOptions();
  $("palette").showModal();
  $("typed").setSelectionRange(text.length, text.length);
}

function listOptions() {
  const wanted = $("typed").value.trim();
  const small = wanted.toLowerCase();
  const place = (name) => {
    const at = name.toLowerCase();
    return at === small ? 0 : at.startsWith(small) ? 1 : at.split(/[\s_-]+/).some((word) => word.startsWith(small)) ? 2 : at.includes(small) ? 3 : 9;
  };
  const found = desk.standing.classes.filter((name) => place(name) < 9).sort((a, b) => place(a) - place(b));
  palette.options = found.slice(0, 50).map((name) => ({ name, text: name }));
  if (wanted && !desk.standing.classes.includes(wanted)) palette.options.push({ name: wanted, text: `New class “${wanted}”`, isNew: true });
  palette.at = Math.min(palette.at, Math.max(0, palette.options.length - 1));
  $("options").replaceChildren(...palette.options.map((option, index) => {
    const line = el("li", { id: `option-${index}`, textContent: option.text, className: option.isNew ? "new" : "" });
    line.setAttribute("role", "option");
    line.setAttribute("aria-selected", index === palette.at);
    line.onclick = () => pick(index);
    return line;
  }));
  $("typed").setAttribute("aria-activedescendant", palette.options.length ? `option-${palette.at}` : "");
  $(`option-${palette.at}`)?.scrollIntoView({ block: "nearest" });
}

function pick(index) {
  const option = palette.options[index];
  if (!option) return;
  $("palette").close();
  answer("label", option.name);
}

// ---- keys -----------------------------------------------------------------------------------------------------------

const inField = (target) => target instanceof Element && target.closest("input, textarea, select, [contenteditable], dialog[open]") !== null;
const acts = (target) => target instanceof Element && target.closest("button, a, summary, audio, video") !== null;

function onKey(event) {
  if (event.defaultPrevented || event.isComposing || !desk.standing || inField(event.target)) return;
  if (event.ctrlKey || event.metaKey || event.altKey) {
    const ours = event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "z";
    if (ours) { event.preventDefault(); undo(); }
    return;
  }
  const { key } = event;
  if ((key === "Enter" || key === " ") && acts(event.target)) return;   // it is that button's
  if (event.target instanceof HTMLMediaElement && key.startsWith("Arrow")) return;
  const handled = handle(event, key);
  if (!handled) return;
  event.preventDefault();
  if (handled === "answered" && desk.view === "one") measure(event.timeStamp);
}

function handle(event, key) {
  const grid = desk.view === "grid";
  const digit = /^Digit[1-9]$|^Numpad[1-9]$/.test(event.code) ? Number(event.code.slice(-1)) : /^[1-9]$/.test(key) ? Number(key) : 0;
  if (digit && (event.code.startsWith("Digit") || /^[1-9]$/.test(key))) {
    const name = desk.standing.classes[digit - 1];
    if (name === undefined || event.repeat) return true;
    answer("label", name, event.shiftKey && !/^[1-9]$/.test(key) && !grid);
    return "answered";
  }
  switch (key) {
    case "Enter": if (!event.repeat) answer("accept"); return "answered";
    case " ": if (!event.repeat) answer("skip"); return "answered";
    case "Backspace": undo(); return true;
    case "ArrowRight": if (grid) moveTile(1, event.shiftKey); else step(1); return true;
    case "ArrowLeft": if (grid) moveTile(-1, event.shiftKey); else step(-1); return true;
    case "ArrowDown": if (!grid) return false; moveTile(columns(), event.shiftKey); return true;
    case "ArrowUp":
      if (grid) { moveTile(-columns(), event.shiftKey); return true; }
      return replay();
    case "Escape": desk.chosen.clear(); renderGrid(); return true;
    case "?": $("legend").showModal(); return true;
  }
  if (key.length === 1 && /[\p{L}\p{N}]/u.test(key)) { openPalette(key); return true; }
  return false;
}

function replay() {
  const sound = $("stage").querySelector("audio");
  if (!sound) return false;
  sound.currentTime = 0;
  sound.play().catch(() => {});
  return true;
}

// From the key to the next item on the screen, as the browser's own performance entries tell.
function measure(began) {
  const painted = () => requestAnimationFrame(() => {
    const after = new MessageChannel();
    after.port1.onmessage = () => performance.measure("key to next item", { start: began, end: performance.now() });
    after.port2.postMessage(null);
  });
  const image = $("stage").querySelector("img");
  if (performance.getEntriesByName("key to next item").length > 2000) performance.clearMeasures("key to next item");
  if (image && !image.complete) image.addEventListener("load", painted, { once: true }); else painted();
}

// ---- beginning ------------------------------------------------------------------------------------------------------

function listen() {
  document.addEventListener("keydown", onKey);
  $("view-one").onclick = () => setView("one");
  $("view-grid").onclick = () => setView("grid");
  $("undo").onclick = (event) => { undo(); back(event); };
  $("help").onclick = () => $("legend").showModal();
  $("by").onchange = () => {
    const name = $("by").value.trim();
    if (!name) { $("by").value = desk.by; return; }
    desk.by = name;
    sessionStorage.setItem("alfm annotator", name);   // of this tab
    desk.version = -1;
  };
  $("by").onkeydown = (event) => { if (event.key === "Enter") $("stage").focus(); };
  let typing = 0;
  $("words").oninput = () => {
    clearTimeout(typing);
    typing = setTimeout(() => { if (desk.view === "grid") fillGrid(); else if ($("words").value) setView("grid"); }, 250);
  };
  $("words").onkeydown = (event) => { if (event.key === "Enter") $(`tile-${desk.focus}`)?.focus(); };
  for (const id of ["which", "of", "sort"]) {
    $(id).onchange = () => fillGrid().then(() => $(`tile-${desk.focus}`)?.focus({ preventScroll: true }));   // for its keys
  }
  $("renew").onclick = () => fillGrid();
  $("tiles").onclick = (event) => {
    const box = event.target.closest(".tile");
    if (box && !event.target.closest("audio")) choose(Number(box.dataset.row), event);
  };
  $("tiles").ondblclick = (event) => {
    const box = event.target.closest(".tile");
    if (box) { setView("one"); show(Number(box.dataset.row)); }
  };
  $("all").onclick = () => { desk.rows.slice(0, desk.drawn).forEach((row) => desk.chosen.add(row)); renderGrid(); };
  $("none").onclick = () => { desk.chosen.clear(); renderGrid(); };
  $("like").onclick = () => moreLike("like");
  $("varied").onclick = () => moreLike("varied");
  $("twins-go").onclick = (event) => { answer("label", desk.items.get(current()).suggestion, true); back(event); };
  new IntersectionObserver((seen) => { if (seen[0].isIntersecting && desk.view === "grid") drawMore().then(renderGrid); }, { rootMargin: "600px" }).observe($("more"));
  $("typed").oninput = () => { palette.at = 0; listOptions(); };
  $("typed").onkeydown = (event) => {
    if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      palette.at = Math.max(0, Math.min(palette.options.length - 1, palette.at + (event.key === "ArrowDown" ? 1 : -1)));
      listOptions();
    } else if (event.key === "Enter") { event.preventDefault(); pick(palette.at); }
  };
  $("audit-start").onclick = async () => {
    try {
      const found = await ask("/api/audit", { by: desk.by, items: 100 });
      if (found.status !== 200) throw new Error(found.error);
      take(found);
      renderAll();
    } catch (error) { notice("audit", error.message, "bad"); }
  };
  $("rename").onsubmit = async (event) => {
    event.preventDefault();
    const olds = [...$("olds").selectedOptions].map((option) => option.value);
    const name = $("new").value.trim();
    if (!olds.length || !name) return;
    const change = olds.length === 1 && !desk.standing.classes.includes(name) ? { rename: [olds[0], name] } : { merge: [olds, name] };
    try {
      const found = await ask("/api/classes", { by: desk.by, ...change });
      if (found.status !== 200) throw new Error(found.error);
      $("new").value = "";
      take(found);
      await refreshShown();
      renderAll();
    } catch (error) { notice("rename", error.message, "bad"); }
  };
  window.addEventListener("beforeunload", (event) => { if (outbox.length) event.preventDefault(); });
}

async function begin() {
  listen();
  try {
    desk.hello = await read("/api/hello");
  } catch (error) {
    $("stage").replaceChildren(el("p", { className: "calm", textContent: error.message }));
    return;
  }
  desk.by = sessionStorage.getItem("alfm annotator") ?? desk.hello.annotator;
  $("by").value = desk.by;
  if (desk.hello.unseen) notice("unseen", desk.hello.unseen);
  $("tiles").classList.toggle("texts", desk.hello.modality === "text");
  await watch();
}

begin();

"use strict";

// Everything from status.json is shown as text: it is only ever given to textContent, or
// to append(), which makes a text of a string.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300, HEIGHT = 60;
// A limit is shown as near its end from here on.
const NEAR = 0.8;
// The smallest rate that fills a chart, so that pings do not look like a load.
const LEAST = 1024;

const byID = (id) => document.getElementById(id);

function make(tag, name, ...children) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...children);
  return node;
}

function makeSVG(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Numbers for people

const count = (value) => value.toLocaleString("en");

const many = (value, one, more) => `${count(value)} ${value === 1 ? one : more}`;

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

function duration(seconds) {
  seconds = Math.max(0, Math.floor(seconds));
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = Math.min(parts.findIndex(([size]) => seconds >= size) >>> 0, 3);
  const [size, name] = parts[first];
  const text = `${Math.floor(seconds / size)} ${name}`;
  if (first >= 2) return text;
  const [next, nextName] = parts[first + 1];
  return `${text} ${Math.floor((seconds % size) / next)} ${nextName}`;
}

const milliseconds = (seconds) =>
  seconds === null ? "unknown" : `${(seconds * 1000).toPrecision(2)} ms`.replace(/e\S+/, "");

const time = (date) => date.toLocaleTimeString("en-GB");

function date(seconds) {
  const then = new Date(seconds * 1000);
  const day = then.toLocaleDateString("sv");
  return day === new Date().toLocaleDateString("sv") ? time(then) : `${day} ${time(then)}`;
}

// Lists: a node for each key, which stays while the key does

function keyed(parent, items, keyOf, build) {
  const kept = parent.keyed || (parent.keyed = new Map());
  const seen = new Set();
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    seen.add(key);
    let node = kept.get(key);
    if (!node) kept.set(key, node = build(item));
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
    node.update(item);
  }
  for (const [key, node] of kept) {
    if (!seen.has(key)) {
      kept.delete(key);
      node.remove();
    }
  }
}

// Peers

function area(name) {
  const line = makeSVG("polyline", {}), fill = makeSVG("polygon", {});
  const group = makeSVG("g", { class: name }, fill, line);
  group.update = (values, top) => {
    const step = WIDTH / Math.max(1, values.length - 1);
    const points = values.map((value, i) =>
      `${(i * step).toFixed(1)},${(HEIGHT - HEIGHT * value / top).toFixed(1)}`).join(" ");
    line.setAttribute("points", points);
    fill.setAttribute("points", `0,${HEIGHT} ${points} ${WIDTH},${HEIGHT}`);
  };
  return group;
}

function chart() {
  const received = area("received"), sent = area("sent");
  const base = makeSVG("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT });
  const svg = makeSVG("svg", {
    class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
  }, base, received, sent);
  svg.update = (rates, samples) => {
    const padded = (values) => values.length ? values : new Array(samples).fill(0);
    const top = Math.max(LEAST, ...rates.received, ...rates.sent);
    received.update(padded(rates.received), top);
    sent.update(padded(rates.sent), top);
    const peak = Math.max(0, ...rates.received, ...rates.sent);
    svg.setAttribute("aria-label", `Rates of the last minutes, at most ${bytes(peak)}/s`);
    return peak;
  };
  return svg;
}

function direction(name, label) {
  const rate = make("b"), total = make("span");
  const node = make("div", name, make("span", "", label), rate, total);
  node.update = (rates, all) => {
    setText(rate, `${bytes(rates.length ? rates[rates.length - 1] : 0)}/s`);
    setText(total, `${bytes(all)} in all`);
  };
  return node;
}

function muxItem() {
  const address = document.createTextNode(""), more = make("span");
  const node = make("li", "", address, more);
  node.update = (mux) => {
    setText(address, mux.address);
    setText(more, [
      mux.role === "client" ? "dialled" : "accepted",
      duration(state.now - mux.since),
      many(mux.streams, "stream", "streams"),
      `${bytes(mux.bytesReceived)} received`,
      `${bytes(mux.bytesSent)} sent`,
    ].join(" · "));
  };
  return node;
}

function peerCard() {
  const name = make("h3"), since = make("span", "quiet");
  const facts = make("p", "quiet"), drawing = chart();
  const peak = make("span"), minutes = make("span"), end = make("span", "", "now");
  const received = direction("received", "Received"), sent = direction("sent", "Sent");
  const summary = make("summary"), list = make("ul"), rest = make("p", "quiet");
  const muxes = make("details", "", summary, list, rest);
  const traffic = make("div", "", drawing, make("div", "axis", minutes, peak, end),
    make("div", "rates", received, sent));
  const node = make("article", "card", make("header", "", name, since), traffic, facts, muxes);
  node.update = (peer) => {
    const isUp = peer.muxes > 0;
    node.classList.toggle("away", !isUp);
    traffic.hidden = !peer.opened;
    setText(name, peer.name || "The only peer");
    setText(since, isUp ?
      `since ${date(peer.since)} · ${duration(state.now - peer.since)}` : "not connected");
    const top = drawing.update(peer.rates, state.samples);
    setText(minutes, `${Math.round(state.samples * state.interval / 60)} min ago`);
    setText(peak, top ? `peak ${bytes(top)}/s` : "");
    received.update(peer.rates.received, peer.bytesReceived);
    sent.update(peer.rates.sent, peer.bytesSent);
    setText(facts, isUp ? [
      many(peer.streams, "open stream", "open streams"),
      `round trip ${milliseconds(peer.roundTrip)}`,
      ...(peer.strict ? ["strict mode"] : []),
    ].join(" · ") : `${many(peer.opened, "mux", "muxes")} so far`);
    muxes.hidden = !isUp;
    setText(summary, many(peer.muxes, "mux", "muxes"));
    keyed(list, peer.connections, (mux) => `${mux.role} ${mux.address}`, muxItem);
    const more = peer.muxes - list.childElementCount;
    rest.hidden = more <= 0;
    setText(rest, `and ${count(more)} more`);
  };
  return node;
}

// Services

function serviceRow() {
  const cells = Array.from({ length: 5 }, () => make("td"));
  const failed = document.createTextNode(""), codes = make("small");
  cells[4].append(failed, codes);
  const node = make("tr", "", ...cells);
  node.update = (facts) => {
    const failures = Object.entries(facts.failures).filter(([, number]) => number);
    const sum = failures.reduce((all, [, number]) => all + number, 0);
    setText(cells[0], facts.service);
    setText(cells[1], facts.direction);
    setText(cells[2], count(facts.open));
    setText(cells[3], count(facts.total));
    setText(failed, count(sum));
    setText(codes, failures.map(([code, number]) => `${code} ${count(number)}`).join(", "));
    cells[4].classList.toggle("bad", sum > 0);
  };
  return node;
}

// Limits

function limitItem() {
  const name = make("span"), numbers = make("span"), fill = make("div");
  const node = make("div", "limit", make("p", "", name, numbers), make("div", "bar", fill));
  node.update = (limit) => {
    const show = limit.name === "max-buffered" ? bytes : count;
    const ratio = limit.limit ? Math.min(1, limit.used / limit.limit) : 0;
    setText(name, limit.name);
    setText(numbers, `${show(limit.used)} of ${limit.limit === null ? "any number" : show(limit.limit)}`);
    fill.style.width = `${100 * ratio}%`;
    node.classList.toggle("near", ratio >= NEAR);
  };
  return node;
}

// The process

function fact() {
  const name = make("dt"), value = make("dd");
  const node = make("div", "", name, value);
  node.update = (item) => {
    setText(name, item[0]);
    setText(value, item[1]);
  };
  return node;
}

function processFacts(found) {
  const refused = Object.entries(found.refused).filter(([, number]) => number);
  const { reload, strangers } = found;
  return [
    ["Running for", `${duration(found.now - found.started)}, since ${date(found.started)}`],
    ["Versions", `gomux ${found.version}, Twisted ${found.twisted}, Python ${found.python}`],
    ["Last reload", reload === null ? "none" :
      `${date(reload.at)}, ${reload.worked ? "worked" : "failed: nothing has changed"}`],
    ["Connections that wait for a peer", count(found.waiting)],
    ["Strangers", `${count(strangers.waiting)} now, ${count(strangers.refused)} turned away`],
    ["Other refused streams", refused.length ?
      refused.map(([code, number]) => `${code} ${count(number)}`).join(", ") : "none"],
  ];
}

// The page

let state = null, timer = null, answered = 0;

function show(found) {
  state = found;
  const health = byID("health"), problems = byID("problems");
  setText(health, found.healthy ? "healthy" : many(found.problems.length, "problem", "problems"));
  health.classList.toggle("good", found.healthy);
  health.classList.toggle("bad", !found.healthy);
  problems.hidden = found.healthy;
  setText(problems.querySelector("h2"), "Not listening, or not connected");
  problems.querySelector("ul").replaceChildren(...found.problems.map((name) => make("li", "", name)));
  document.title = `${found.healthy ? "" : "⚠ "}gomux ${location.host}`;
  keyed(byID("peers"), found.peers, (peer) => peer.name, peerCard);
  keyed(byID("services"), found.services, (s) => `${s.direction} ${s.service}`, serviceRow);
  keyed(byID("limits"), found.limits.filter((limit) => limit.limit !== 0), (limit) => limit.name, limitItem);
  keyed(byID("process"), processFacts(found), (item) => item[0], fact);
}

async function refresh() {
  clearTimeout(timer);
  let seconds = state ? state.interval : 5;
  try {
    const response = await fetch("status.json", { cache: "no-store" });
    if (!response.ok) throw new Error(`status ${response.status}`);
    show(await response.json());
    answered = Date.now();
    seconds = state.interval;
    document.body.classList.remove("stale");
    setText(byID("updated"), `updated ${time(new Date())}`);
  } catch (error) {
    document.body.classList.add("stale");
    const since = answered ? ` since ${time(new Date(answered))}` : "";
    setText(byID("updated"), `no answer${since}`);
    setText(byID("health"), "unknown");
    byID("health").className = "pill";
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(refresh, 1000 * seconds);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
refresh();

"use strict";
// What a report does when it is touched: values under the pointer or the arrow keys, and attention maps.

const tip = document.getElementById("tip");

function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(4, y - tip.offsetHeight - 10)}px`;
}

// Plots: every mark carries its values as a label; the nearest one is shown.
for (const figure of document.querySelectorAll("figure")) {
  const marks = [...figure.querySelectorAll("path[aria-label]")];
  let at = -1;
  const centre = (mark) => {
    const box = mark.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  const show = (index) => {
    at = index;
    showTip(marks[at].getAttribute("aria-label"), ...centre(marks[at]));
  };
  figure.addEventListener("pointermove", (event) => {
    const far = marks.map((mark) => Math.hypot(centre(mark)[0] - event.clientX, centre(mark)[1] - event.clientY));
    const nearest = far.indexOf(Math.min(...far));
    if (far[nearest] < 40) show(nearest); else tip.hidden = true;
  });
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || !marks.length) return;
    event.preventDefault();
    show((at + step + marks.length) % marks.length);
  });
  for (const end of ["pointerleave", "blur"]) figure.addEventListener(end, () => { tip.hidden = true; });
}

// Attention maps.
const shown = (piece) => piece.replace(/^▁/, "").replace(/▁/g, " ") || "␣";
const text = (pieces) => pieces.filter((piece) => !/^<\/?\w+>$/.test(piece)).join("").replaceAll("▁", " ").trim();
const decode = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

function element(tag, text) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return made;
}

function attention(place) {
  const maps = JSON.parse(place.dataset.maps).map((map) => ({ ...map, weights: decode(map.weights) }));
  const [sentence, head] = ["sentence", "head"].map((name) => place.querySelector(`.${name}`));
  const [table, readout, heads] = ["map", "readout", "heads"].map((name) => place.querySelector(`.${name}`));
  const { layers, heads: perLayer } = maps[0];
  let map = maps[0], row = 0, column = 0;

  const weight = (layer, number, t, s) =>
    map.weights[((layer * perLayer + number) * map.target.length + t) * map.source.length + s] / 255;
  const numbers = (value) => (value.includes(",") ? [Number(value.split(",")[1])] : [...Array(perLayer).keys()]);
  const mean = (t, s) => {
    const chosen = numbers(head.value), layer = Number(head.value.split(",")[0]);
    return chosen.reduce((sum, number) => sum + weight(layer, number, t, s), 0) / chosen.length;
  };

  function point(t, s) {
    for (const old of table.querySelectorAll(".here")) old.classList.remove("here");
    [row, column] = [t, s];
    const cells = table.tBodies[0].rows[t].cells;
    for (const cell of [cells[0], cells[s + 1], table.tHead.rows[0].cells[s + 1]]) cell.classList.add("here");
    const words = { row: `“${shown(map.target[t])}”`, column: `“${shown(map.source[s])}”`, share: `${(100 * mean(t, s)).toFixed(0)} %` };
    readout.textContent = map.said.replace(/\[(row|column|share)\]/g, (_, word) => words[word]);
  }

  function draw() {
    const top = element("thead"), line = element("tr"), body = element("tbody");
    line.append(element("td"), ...map.source.map((piece) => element("th", shown(piece))));
    top.append(line);
    map.target.forEach((piece, t) => {
      const cells = map.source.map((_, s) => {
        const cell = element("td");
        cell.style.setProperty("--weight", mean(t, s).toFixed(3));
        cell.addEventListener("pointerenter", () => point(t, s));
        return cell;
      });
      const made = element("tr");
      made.append(element("th", shown(piece)), ...cells);
      body.append(made);
    });
    table.replaceChildren(top, body);
    for (const button of heads.children) button.setAttribute("aria-pressed", String(button.dataset.head === head.value));
  }

  function drawHeads() {
    heads.style.gridTemplateColumns = `repeat(${perLayer}, minmax(0, 80px))`;
    const ink = getComputedStyle(place).getPropertyValue("--series-1");
    const buttons = [];
    for (let layer = 0; layer < layers; layer++) for (let number = 0; number < perLayer; number++) {
      const button = element("button"), canvas = element("canvas");
      Object.assign(canvas, { width: map.source.length, height: map.target.length });
      const context = canvas.getContext("2d");
      context.fillStyle = ink;
      map.target.forEach((_, t) => map.source.forEach((_, s) => {
        context.globalAlpha = weight(layer, number, t, s);
        context.fillRect(s, t, 1, 1);
      }));
      button.dataset.head = `${layer},${number}`;
      button.setAttribute("aria-label", `layer ${layer + 1}, head ${number + 1}`);
      button.title = `layer ${layer + 1}, head ${number + 1}`;
      button.append(canvas);
      button.addEventListener("click", () => { head.value = button.dataset.head; draw(); });
      buttons.push(button);
    }
    heads.replaceChildren(...buttons);
  }

  maps.forEach(({ source }, i) => sentence.append(new Option(text(source), i)));
  for (let layer = 0; layer < layers; layer++) {
    head.append(new Option(`layer ${layer + 1}, mean of its heads`, `${layer}`));
    for (let number = 0; number < perLayer; number++) head.append(new Option(`layer ${layer + 1}, head ${number + 1}`, `${layer},${number}`));
  }
  const start = () => { map = maps[Number(sentence.value)]; drawHeads(); draw(); };
  head.value = `${layers - 1}`;
  sentence.value = String(maps.length - 1);
  sentence.addEventListener("change", start);
  head.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", start);
  table.addEventListener("keydown", (event) => {
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!move) return;
    event.preventDefault();
    const within = (value, size) => Math.max(0, Math.min(size - 1, value));
    point(within(row + move[0], map.target.length), within(column + move[1], map.source.length));
  });
  start();
}

document.querySelectorAll(".attention").forEach(attention);
document.body.dataset.ready = "yes";

"use strict";
// The interactive parts of a report: tooltips of the plots, by pointer or arrow keys, and the attention maps.

const tip = document.getElementById("tip");

function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(4, y - tip.offsetHeight - 10)}px`;
}

// Plots: each mark has a label with its values. The tooltip shows the label of the nearest mark.
for (const figure of document.querySelectorAll("figure")) {
  const marks = [...figure.querySelectorAll("path[aria-label]")];
  let current = -1;
  const centre = (mark) => {
    const box = mark.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  const show = (index) => {
    current = index;
    showTip(marks[index].getAttribute("aria-label"), ...centre(marks[index]));
  };
  figure.addEventListener("pointermove", (event) => {
    const distances = marks.map((mark) => Math.hypot(centre(mark)[0] - event.clientX, centre(mark)[1] - event.clientY));
    const nearest = distances.indexOf(Math.min(...distances));
    if (distances[nearest] < 40) show(nearest); else tip.hidden = true;
  });
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || !marks.length) return;
    event.preventDefault();
    show((current + step + marks.length) % marks.length);
  });
  for (const type of ["pointerleave", "blur"]) figure.addEventListener(type, () => { tip.hidden = true; });
}

// Attention maps.
const visible = (piece) => piece.replace(/^▁/, "").replace(/▁/g, " ") || "␣";
const text = (pieces) => pieces.filter((piece) => !/^<\/?\w+>$/.test(piece)).join("").replaceAll("▁", " ").trim();
const decodeBase64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

function element(tag, text) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  return node;
}

function attention(container) {
  const maps = JSON.parse(container.dataset.maps).map((map) => ({ ...map, weights: decodeBase64(map.weights) }));
  const [sentence, head] = ["sentence", "head"].map((name) => container.querySelector(`.${name}`));
  const [table, readout, heads] = ["map", "readout", "heads"].map((name) => container.querySelector(`.${name}`));
  const { layers, heads: perLayer } = maps[0];
  let map = maps[0], row = 0, column = 0;

  // weights: uint8 [L, H, T, S]. The value of the select "head" is "layer" for the mean of its heads, or "layer,head".
  const weight = (layer, number, t, s) =>
    map.weights[((layer * perLayer + number) * map.target.length + t) * map.source.length + s] / 255;
  const headNumbers = (value) => (value.includes(",") ? [Number(value.split(",")[1])] : [...Array(perLayer).keys()]);
  const mean = (t, s) => {
    const numbers = headNumbers(head.value), layer = Number(head.value.split(",")[0]);
    return numbers.reduce((sum, number) => sum + weight(layer, number, t, s), 0) / numbers.length;
  };

  function selectCell(t, s) {
    for (const cell of table.querySelectorAll(".here")) cell.classList.remove("here");
    [row, column] = [t, s];
    const cells = table.tBodies[0].rows[t].cells;
    for (const cell of [cells[0], cells[s + 1], table.tHead.rows[0].cells[s + 1]]) cell.classList.add("here");
    const values = { row: `“${visible(map.target[t])}”`, column: `“${visible(map.source[s])}”`, share: `${(100 * mean(t, s)).toFixed(0)} %` };
    readout.textContent = map.caption.replace(/\[(row|column|share)\]/g, (_, name) => values[name]);
  }

  function draw() {
    const top = element("thead"), header = element("tr"), body = element("tbody");
    header.append(element("td"), ...map.source.map((piece) => element("th", visible(piece))));
    top.append(header);
    map.target.forEach((piece, t) => {
      const cells = map.source.map((_, s) => {
        const cell = element("td");
        cell.style.setProperty("--weight", mean(t, s).toFixed(3));
        cell.addEventListener("pointerenter", () => selectCell(t, s));
        return cell;
      });
      const tr = element("tr");
      tr.append(element("th", visible(piece)), ...cells);
      body.append(tr);
    });
    table.replaceChildren(top, body);
    for (const button of heads.children) button.setAttribute("aria-pressed", String(button.dataset.head === head.value));
  }

  function drawHeads() {
    heads.style.gridTemplateColumns = `repeat(${perLayer}, minmax(0, 80px))`;
    const ink = getComputedStyle(container).getPropertyValue("--series-1");
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
    head.append(new Option(`layer ${layer + 1}, mean of all heads`, `${layer}`));
    for (let number = 0; number < perLayer; number++) head.append(new Option(`layer ${layer + 1}, head ${number + 1}`, `${layer},${number}`));
  }
  const showSentence = () => { map = maps[Number(sentence.value)]; drawHeads(); draw(); };
  head.value = `${layers - 1}`;
  sentence.value = String(maps.length - 1);
  sentence.addEventListener("change", showSentence);
  head.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showSentence);
  table.addEventListener("keydown", (event) => {
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!move) return;
    event.preventDefault();
    const clamp = (value, size) => Math.max(0, Math.min(size - 1, value));
    selectCell(clamp(row + move[0], map.target.length), clamp(column + move[1], map.source.length));
  });
  showSentence();
}

document.querySelectorAll(".attention").forEach(attention);
document.body.dataset.ready = "yes";

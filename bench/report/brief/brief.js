"use strict";
// Answers again when the reader chooses tasks or a tolerance: the rules of bench/report/decision.py on the same rounded numbers.
const { items, common, texts, box, tasks, first_task: firstTask, ...configured } = JSON.parse(document.getElementById("data").textContent);
const dense = items[items.length - 1];
const options = items.slice(0, -1);
const $ = (id) => document.getElementById(id);
const points = [...$("points").children].sort((a, b) => a.dataset.place - b.dataset.place);
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const candidates = document.querySelectorAll(".candidates .label");
let matter = configured.matter;
let tolerance = configured.tolerance;

function judge(option, place) {
  const losses = matter.map((task) => option.loss[task]);
  const complete = losses.length > 0 && !losses.includes(null);
  const worst = complete ? Math.max(...losses) : null;
  const bad = matter.some((task) => option.collapsed[task]);
  const holds = complete && worst <= tolerance && !bad;
  return { option, place, worst, bad, holds, task: matter[losses.indexOf(worst)], key: holds ? [0, 0] : complete ? [1, worst] : [2, 0] };
}

const rank = () => options.map(judge).sort((a, b) => a.key[0] - b.key[0] || a.key[1] - b.key[1] || a.place - b.place);

function mean(item) {
  const scores = matter.map((task) => item.score[task]);
  return scores.length && !scores.includes(null) ? scores.reduce((sum, score) => sum + score, 0) / scores.length : null;
}

const lossText = (worst) => Math.max(worst, 0).toFixed(2);

function valuesOf(verdict) {
  const named = matter.map((task) => tasks[task]).join(texts.separator) || texts.nothing;
  const [collapsed, sound] = verdict.bad ? [texts.collapsed, texts.sound] : ["", ""];
  return { ...common, ...verdict.option.values, tolerance: tolerance.toFixed(2), tasks: named, collapsed, sound, worst: lossText(verdict.worst), task: tasks[verdict.task] };
}

function certainty({ option }) {
  if (matter.some((task) => option.half[task] === null || option.pairs[task] < 2)) return texts.single;
  const reached = matter.map((task) => Math.round(100 * (option.loss[task] + option.half[task])) / 100);
  const upper = Math.max(...reached);
  return upper <= tolerance ? texts.certain : fill(texts.uncertain, { upper: upper.toFixed(2), upper_task: tasks[matter[reached.indexOf(upper)]] });
}

function showAnswer(best) {
  const kind = best.holds ? "found" : best.worst === null ? "incomplete" : "none";
  const values = { ...valuesOf(best), certainty: best.holds ? certainty(best) : "" };
  $("answer").className = `answer ${kind}`;
  $("rule").textContent = fill(texts.rule, values);
  $("head").textContent = fill(texts.answers[kind].head, values);
  $("body").textContent = fill(texts.answers[kind].body, values);
  $("certainty").textContent = values.certainty;
  $("phrases").replaceChildren(...texts.answers[kind].phrases.map((line) => {
    const item = document.createElement("li");
    item.textContent = fill(line, values);
    return item;
  }));
}

function showTables(shown) {
  shown.forEach((verdict, column) => { candidates[column].textContent = verdict.option.values.label; });
  for (const row of document.querySelectorAll("tr[data-line]")) {
    const line = Number(row.dataset.line);
    const task = line - firstTask;
    [{ option: dense, worst: null }, ...shown].forEach(({ option, worst }, column) => {
      const cell = row.querySelectorAll("td")[column];
      const average = line === 0 ? mean(option) : null;
      cell.textContent = line === 0 ? (average === null ? "–" : average.toFixed(1))
        : line === 1 ? (worst === null ? "–" : lossText(worst)) : option.cells[line];
      cell.className = option !== dense && task in tasks && (option.collapsed[task] || option.loss[task] > tolerance) ? "hurt" : "";
    });
  }
}

function element(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function showChart(shown) {
  const means = items.map(mean);
  const known = means.filter((value) => value !== null);
  const [least, most] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 100];
  const spare = Math.max(0.1 * (most - least), 0.5);
  const y = (value) => box.top + (most + spare - value) / (most - least + 2 * spare) * (box.bottom - box.top);
  const rough = (most - least + 2 * spare) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * Math.max(...[1, 2, 5].filter((factor) => factor * power <= rough));
  $("levels").replaceChildren();
  for (let k = Math.ceil((least - spare) / step); k * step <= most + spare; k += 1) {
    const at = y(k * step);
    $("levels").append(element("line", { x1: box.left, x2: box.right, y1: at, y2: at }),
      element("text", { x: box.left - 8, y: at, dy: "0.35em", "text-anchor": "end" }, (k * step).toFixed(step < 1 ? 1 : 0)));
  }
  const front = [];
  items.map((item, place) => place).filter((place) => means[place] !== null)
    .sort((a, b) => items[a].bytes - items[b].bytes || means[b] - means[a] || a - b)
    .forEach((place) => { if (!front.length || means[place] > means[front[front.length - 1]]) front.push(place); });
  $("front").setAttribute("d", front.map((place, i) => (i ? `H${items[place].x}V${y(means[place])}` : `M${items[place].x} ${y(means[place])}`)).join(""));
  points.forEach((point, place) => {
    const letter = shown.findIndex((verdict) => verdict.place === place);
    point.toggleAttribute("hidden", means[place] === null);
    if (means[place] !== null) point.setAttribute("transform", `translate(${items[place].x} ${y(means[place])})`);
    point.classList.toggle("front", front.includes(place));
    point.classList.toggle("candidate", letter >= 0);
    point.querySelector("text").textContent = letter >= 0 ? texts.letters[letter] : "";
  });
  shown.forEach((verdict) => $("points").append(points[verdict.place])); // drawn above the others
  const level = means[means.length - 1];
  $("level").toggleAttribute("hidden", level === null);
  if (level !== null) $("level").setAttribute("transform", `translate(0 ${y(level)})`);
}

function describe(place) {
  const average = mean(items[place]);
  const shown = { mean: average === null ? "–" : average.toFixed(1) };
  if (items[place] === dense) return fill(texts.chart.readout_dense, { ...dense.values, ...shown });
  const verdict = judge(items[place], place);
  return fill(verdict.worst === null ? texts.chart.readout_incomplete : texts.chart.readout, { ...valuesOf(verdict), ...shown });
}

function point(place) {
  points.forEach((other, index) => { other.classList.toggle("on", index === place); other.setAttribute("aria-selected", index === place); });
  $("points").setAttribute("aria-activedescendant", points[place].id);
  $("readout").textContent = describe(place);
}

function update() {
  matter = [...document.querySelectorAll("fieldset input:checked")].map((input) => Number(input.value));
  tolerance = Number($("tolerance").value);
  $("tolerated").textContent = tolerance.toFixed(2);
  const ranked = rank();
  const shown = ranked.slice(0, candidates.length);
  showAnswer(ranked[0]);
  showTables(shown);
  showChart(shown);
  points.forEach((one, place) => one.setAttribute("aria-label", describe(place)));
  $("readout").textContent = texts.chart.hint;
}

points.forEach((one, place) => {
  one.id = `point-${place}`;
  one.setAttribute("role", "option");
  one.setAttribute("aria-label", describe(place));
  one.querySelector("title").remove(); // the readout says more, and a second name would be read twice
  one.addEventListener("pointerenter", () => point(place));
});
$("chart").setAttribute("role", "group");
for (const [key, value] of Object.entries({ role: "listbox", tabindex: 0, "aria-label": texts.chart.head })) $("points").setAttribute(key, value);
$("points").addEventListener("keydown", (event) => {
  const move = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
  if (!move) return;
  event.preventDefault();
  const seen = points.filter((one) => !one.hasAttribute("hidden")).sort((a, b) => items[points.indexOf(a)].x - items[points.indexOf(b)].x);
  if (!seen.length) return;
  const now = seen.findIndex((one) => one.classList.contains("on"));
  point(points.indexOf(seen[now < 0 ? 0 : (now + move + seen.length) % seen.length]));
});
$("controls").hidden = false;
$("readout").hidden = false;
$("controls").addEventListener("input", update);
$("controls").addEventListener("submit", (event) => event.preventDefault());

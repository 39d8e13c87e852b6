"use strict";
// Answers again by rule.js when the reader chooses tasks or a tolerance.
const { items, common, texts, tasks, first_task: firstTask, ...configured } = JSON.parse(document.getElementById("data").textContent);
const options = items.slice(0, -1);
const $ = (id) => document.getElementById(id);
const points = [...$("points").children];
const letters = [...document.querySelectorAll("#chart .letter")];
const candidates = document.querySelectorAll(".candidates .label");
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
let { matter, tolerance } = configured;

const lossText = (worst) => Math.max(worst, 0).toFixed(2);
const meanText = (value) => (value === null ? "–" : value.toFixed(1));

function valuesOf(verdict) {
  const item = options[verdict.place];
  const bad = matter.some((task) => item.collapsed[task]);
  return { ...common, ...item.values, tolerance: tolerance.toFixed(2), tasks: matter.map((task) => tasks[task]).join(texts.separator) || texts.nothing,
    collapsed: bad ? texts.collapsed : "", sound: bad ? texts.sound : "", worst: lossText(verdict.worst), task: tasks[verdict.task], certainty: verdict.holds ? certainty(item) : "" };
}

function certainty(item) {
  const reached = reach(item, matter);
  if (reached === null) return texts.single;
  return reached[0] <= tolerance ? texts.certain : fill(texts.uncertain, { upper: reached[0].toFixed(2), upper_task: tasks[reached[1]] });
}

function showAnswer(best) {
  const kind = best.holds ? "found" : best.worst === null ? "incomplete" : "none";
  const values = valuesOf(best);
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
  const columns = [{ item: items.at(-1), worst: null }, ...shown.map(({ place, worst }) => ({ item: items[place], worst }))];
  shown.forEach(({ place }, column) => { candidates[column].textContent = items[place].values.label; });
  for (const row of document.querySelectorAll("tr[data-line]")) {
    const line = Number(row.dataset.line);
    const task = line - firstTask;
    columns.forEach(({ item, worst }, column) => {
      const cell = row.querySelectorAll("td")[column];
      cell.textContent = line === 0 ? meanText(mean(item, matter)) : line === 1 ? (worst === null ? "–" : lossText(worst)) : item.cells[line];
      cell.className = column && task in tasks && (item.collapsed[task] || item.loss[task] > tolerance) ? "hurt" : "";
    });
  }
}

function showChart(shown) {
  const means = items.map((item) => mean(item, matter));
  const known = means.filter((value) => value !== null);
  const [least, most] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 100];
  const levels = document.querySelectorAll("#levels text");
  const power = 10 ** Math.floor(Math.log10(Math.max(most - least, 0.3) / (levels.length - 1)));
  const foot = (size) => Math.floor(least / size) * size;
  const step = [1, 2, 5, 10, 20].map((factor) => factor * power).find((size) => foot(size) + (levels.length - 1) * size >= most);
  const low = foot(step);
  const [top, bottom] = [$("chart").dataset.top, $("chart").dataset.bottom].map(Number);
  const y = (value) => bottom - (value - low) / (step * (levels.length - 1)) * (bottom - top);
  levels.forEach((text, k) => { text.textContent = (low + k * step).toFixed(Math.max(0, -Math.floor(Math.log10(step)))); });

  const front = [];
  [...items.keys()].filter((place) => means[place] !== null)
    .sort((a, b) => items[a].bytes - items[b].bytes || means[b] - means[a] || a - b)
    .forEach((place) => { if (!front.length || means[place] > means[front.at(-1)]) front.push(place); });
  const x = (place) => points[place].getAttribute("x");
  document.querySelector("#front path").setAttribute("d", front.map((place, i) => (i ? `H ${x(place)} V ${y(means[place])}` : `M ${x(place)} ${y(means[place])}`)).join(" "));
  const dense = means.at(-1);
  $("level").toggleAttribute("hidden", dense === null);
  const level = document.querySelector("#level path");
  if (dense !== null) level.setAttribute("d", level.getAttribute("d").replace(/(?<=[ML] [\d.]+ )[\d.]+/g, y(dense)));

  const chosen = shown.map(({ place }) => place);
  points.forEach((point, place) => {
    point.toggleAttribute("hidden", means[place] === null);
    if (means[place] !== null) point.setAttribute("y", y(means[place]));
    point.classList.toggle("front", front.includes(place));
    point.classList.toggle("candidate", chosen.includes(place));
  });
  letters.forEach((letter, i) => {
    const at = points[chosen[i]];
    letter.toggleAttribute("hidden", at.hasAttribute("hidden"));
    for (const key of ["x", "y"]) letter.setAttribute(key, at.getAttribute(key));
  });
}

function describe(place) {
  const shown = { mean: meanText(mean(items[place], matter)) };
  if (place === options.length) return fill(texts.chart.readout_dense, { ...items[place].values, ...shown });
  const verdict = judge(items[place], place, matter, tolerance);
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
  const ranked = rank(options, matter, tolerance);
  const shown = ranked.slice(0, candidates.length);
  showAnswer(ranked[0]);
  showTables(shown);
  showChart(shown);
  points.forEach((mark, place) => mark.setAttribute("aria-label", describe(place)));
  $("readout").textContent = texts.chart.hint;
}

points.forEach((mark, place) => {
  for (const [key, value] of Object.entries({ id: `point-${place}`, role: "option", "aria-label": describe(place) })) mark.setAttribute(key, value);
  mark.addEventListener("pointerenter", () => point(place));
});
$("chart").setAttribute("role", "group");
for (const [key, value] of Object.entries({ role: "listbox", tabindex: 0, "aria-label": texts.chart.head })) $("points").setAttribute(key, value);
$("points").addEventListener("keydown", (event) => {
  const move = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
  if (!move) return;
  event.preventDefault();
  const seen = points.filter((mark) => !mark.hasAttribute("hidden")).sort((a, b) => a.getAttribute("x") - b.getAttribute("x"));
  if (!seen.length) return;
  const now = seen.findIndex((mark) => mark.classList.contains("on"));
  point(points.indexOf(seen[now < 0 ? 0 : (now + move + seen.length) % seen.length]));
});
$("controls").hidden = false;
$("readout").hidden = false;
$("controls").addEventListener("input", update);
$("controls").addEventListener("submit", (event) => event.preventDefault());

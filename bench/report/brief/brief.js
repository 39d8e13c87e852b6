"use strict";
// Answers again by rule.js when the reader chooses tasks or a tolerance.
const { items, common, texts, tasks, first, standard, best, levels, most, ...configured } = JSON.parse(document.getElementById("data").textContent);
const options = items.slice(0, -1);
const firstTask = first + 5; // after the lines that depend on the tasks that matter: mean, worst, chance, measured, seeds
const $ = (id) => document.getElementById(id);
const points = [...$("points").children];
const letters = [...document.querySelectorAll("#chart .letter")];
const candidates = document.querySelectorAll(".candidates .label");
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
let { matter, tolerance } = configured;

const lossText = (worst) => Math.max(worst, 0).toFixed(2);
const meanText = (value) => (value === null ? "–" : value.toFixed(1));
const percent = (share) => `${Math.min(99, Math.max(1, Math.round(100 * share)))}\u00a0%`;
const minus = (value, digits) => (Number(value.toFixed(digits)) + 0).toFixed(digits).replace("-", "−");
const listed = (names) => (names.length > most ? fill(texts.many, { count: names.length }) : names.join(texts.separator));
const oddsOf = (item) => chance(item, matter, tolerance);

function valuesOf(verdict) {
  const item = options[verdict.place];
  const bad = matter.some((task) => item.collapsed[task]);
  const chosen = { tolerance: tolerance.toFixed(2), tasks: listed(matter.map((task) => tasks[task])) || texts.nothing,
    collapsed: bad ? texts.collapsed : "", sound: bad ? texts.sound : "", worst: lossText(verdict.worst), task: tasks[verdict.task] };
  const values = { ...common, ...item.values, ...chosen, ...risks(item) };
  return { ...values, use: fill(texts.use[values.memory === texts.unmeasured ? "unknown" : "known"], values) };
}

function risks(item) {
  const odds = oddsOf(item);
  if (odds === null) return { safest: "" };
  const chances = options.map((option) => oddsOf(option) ?? 0);
  const likely = chances.findIndex((value) => value >= levels.likely && levels.likely > odds);
  const other = likely < 0 ? chances.indexOf(Math.max(...chances)) : likely;
  const safest = percent(chances[other]) === percent(odds) ? ""
    : fill(likely < 0 ? texts.safest : texts.likelier, { ...options[other].values, risk: percent(1 - chances[other]) });
  return { chance: percent(odds), risk: percent(1 - odds), safest };
}

function showAnswer(verdict) {
  const kind = verdict.holds ? "found" : verdict.worst === null ? "incomplete" : "none";
  const odds = oddsOf(options[verdict.place]);
  const level = odds === null ? "unknown" : Object.keys(levels).find((name) => odds >= levels[name]);
  const values = valuesOf(verdict);
  $("answer").className = `answer ${kind} ${level}`;
  $("rule").textContent = fill(texts.rule, values);
  $("head").textContent = fill(texts.answers[kind].head, values);
  $("body").textContent = fill(texts.answers[kind].body, values);
  $("advice").textContent = fill(texts.advice[kind === "found" ? level : kind], values);
}

function chosenCells(item, candidate) {
  const losses = matter.map((task) => item.loss[task]).filter((loss) => loss !== null);
  const without = matter.filter((task) => item.score[task] === null).map((task) => tasks[task]);
  const odds = oddsOf(item);
  const seeds = matter.map((task) => item.seeds[task]).filter((count) => count);
  const low = Math.min(...seeds);
  const high = Math.max(...seeds);
  return [meanText(mean(item, matter)), candidate && losses.length ? lossText(Math.max(...losses)) : "–", candidate && odds !== null ? percent(odds) : "–",
    fill(texts.measured[without.length ? "part" : "all"], { count: matter.length - without.length, of: matter.length, without: listed(without) }),
    seeds.length ? fill(texts.counts[low === high ? "one" : "several"], { low, high }) : "–"];
}

function showTables(shown) {
  shown.forEach((place, column) => { candidates[column].textContent = items[place].values.label; });
  const columns = [items.at(-1), ...shown.map((place) => items[place])].map((item, column) => ({ item, chosen: chosenCells(item, column > 0) }));
  for (const row of document.querySelectorAll("tr[data-line]")) {
    const line = Number(row.dataset.line);
    const task = line - firstTask;
    columns.forEach(({ item, chosen }, column) => {
      const cell = row.querySelectorAll("td")[column];
      cell.textContent = line >= first && line < firstTask ? chosen[line - first] : item.cells[line];
      cell.className = column && task in tasks && (item.collapsed[task] || item.loss[task] > tolerance) ? "hurt" : "";
    });
  }
}

function showChart(shown) {
  const changes = [...options.map((item) => change(item, matter)), 0];
  const whole = items.map((item, place) => changes[place] !== null && mean(item, matter) !== null);
  const known = changes.filter((value) => value !== null);
  const [low_, high] = [Math.min(...known), Math.max(...known)];
  const ticks = document.querySelectorAll("#levels text");
  const power = 10 ** Math.floor(Math.log10(Math.max(high - low_, 0.3) / (ticks.length - 1)));
  const foot = (size) => Math.floor(low_ / size) * size;
  const step = [1, 2, 5, 10, 20].map((factor) => factor * power).find((size) => foot(size) + (ticks.length - 1) * size >= high);
  const low = foot(step);
  const [top, bottom] = [$("chart").dataset.top, $("chart").dataset.bottom].map(Number);
  const y = (value) => bottom - (value - low) / (step * (ticks.length - 1)) * (bottom - top);
  ticks.forEach((text, k) => { text.textContent = minus(low + k * step, Math.max(0, -Math.floor(Math.log10(step)))); });

  const front = [];
  [...items.keys()].filter((place) => whole[place])
    .sort((a, b) => items[a].bytes - items[b].bytes || changes[b] - changes[a] || a - b)
    .forEach((place) => { if (!front.length || changes[place] > changes[front.at(-1)]) front.push(place); });
  const x = (place) => points[place].getAttribute("x");
  document.querySelector("#front path").setAttribute("d", front.map((place, i) => (i ? `H ${x(place)} V ${y(changes[place])}` : `M ${x(place)} ${y(changes[place])}`)).join(" "));
  const level = document.querySelector("#level path");
  level.setAttribute("d", level.getAttribute("d").replace(/(?<=[ML] [\d.]+ )[\d.]+/g, y(0)));

  points.forEach((point, place) => {
    point.toggleAttribute("hidden", changes[place] === null);
    if (changes[place] !== null) point.setAttribute("y", y(changes[place]));
    point.classList.toggle("partial", !whole[place]);
    point.classList.toggle("front", front.includes(place));
    point.classList.toggle("candidate", shown.includes(place));
  });
  letters.forEach((letter, i) => {
    const at = points[shown[i]];
    letter.toggleAttribute("hidden", at.hasAttribute("hidden"));
    for (const key of ["x", "y"]) letter.setAttribute(key, at.getAttribute(key));
  });
}

function describe(place) {
  const shown = { mean: meanText(mean(items[place], matter)) };
  if (place === options.length) return fill(texts.chart.readout_dense, { ...items[place].values, ...shown });
  const verdict = judge(items[place], place, matter, tolerance);
  const measured = chosenCells(items[place], true)[3];
  return fill(verdict.worst === null ? texts.chart.readout_incomplete : texts.chart.readout, { ...valuesOf(verdict), ...shown, measured });
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
  const places = ranked.map(({ place }) => place);
  const shown = [...new Set([...places.slice(0, best), ...standard, ...places])].slice(0, candidates.length);
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

// The rule of bench/report/decision.py; tests/report/decisions.json holds both to the same answers.
function judge(item, place, matter, tolerance) {
  const losses = matter.map((task) => item.loss[task]);
  if (!losses.length || losses.includes(null)) return { place, holds: false, worst: null, task: null };
  const worst = Math.max(...losses);
  const holds = worst <= tolerance && !matter.some((task) => item.collapsed[task]);
  return { place, holds, worst, task: matter[losses.indexOf(worst)] };
}

function rank(items, matter, tolerance) {
  const key = (verdict) => (verdict.holds ? -Infinity : verdict.worst ?? Infinity);
  return items.map((item, place) => judge(item, place, matter, tolerance)).sort((a, b) => key(a) - key(b) || a.place - b.place);
}

function mean(item, matter) {
  const scores = matter.map((task) => item.score[task]);
  return scores.length && !scores.includes(null) ? scores.reduce((sum, score) => sum + score, 0) / scores.length : null;
}

function reach(item, matter) {
  if (matter.some((task) => item.half[task] === null || item.pairs[task] < 2)) return null;
  const reached = matter.map((task) => Math.round(100 * (item.loss[task] + item.half[task])) / 100);
  const upper = Math.max(...reached);
  return [upper, matter[reached.indexOf(upper)]];
}

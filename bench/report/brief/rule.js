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

function change(item, matter) {
  const losses = matter.map((task) => item.loss[task]).filter((loss) => loss !== null);
  return losses.length ? -losses.reduce((sum, loss) => sum + loss, 0) / losses.length : null;
}

function chance(item, matter, tolerance) {
  if (!matter.length || matter.some((task) => item.loss[task] === null || item.error[task] === null)) return null;
  return matter.reduce((product, task) => {
    const room = tolerance - item.loss[task];
    return product * (item.error[task] ? below(room / item.error[task], item.freedom[task]) : Number(room >= 0));
  }, 1);
}

// P(T < x) of Student's t: with x = sqrt(freedom) tan(angle), the angle's density is proportional to cos(angle)^(freedom - 1).
function below(x, freedom) {
  const area = (end, steps = 2000) => {
    let sum = 0;
    for (let step = 0.5; step < steps; step += 1) sum += Math.cos((end * step) / steps) ** (freedom - 1);
    return (sum * end) / steps;
  };
  return 0.5 + (0.5 * area(Math.atan(x / Math.sqrt(freedom)))) / area(Math.PI / 2);
}

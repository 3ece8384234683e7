// Questions to the engine. Every answer is JSON; an error becomes an Error with the server's text.

export async function ask(path, parameters = {}, body = undefined) {
  const query = new URLSearchParams(parameters).toString();
  let answer;
  try {
    answer = await fetch(`/api/${path}${query ? `?${query}` : ""}`, body === undefined ? {} : { method: "POST", body });
  } catch {
    throw new Error("numbanet explore does not answer; is it still running?");
  }
  const found = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) {
    const error = new Error(found.error || `the server answered ${answer.status}`);
    error.status = answer.status;
    throw error;
  }
  return found;
}

export function bytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

const status = document.getElementById("status");

export function say(text, isError = false) {
  status.textContent = text;
  status.classList.toggle("error", isError);
}

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

export function short(value) {
  if (value === null || value === undefined) return "nan";
  const size = Math.abs(value);
  if (size >= 1e5 || (size > 0 && size < 0.001)) return value.toExponential(1);
  return String(Number(value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 3)));
}

// A sheet of paper for digits: mouse, finger or keyboard.

export function paper(canvas, onSend) {
  const context = canvas.getContext("2d");
  const pen = { x: canvas.width / 2, y: canvas.height / 2, down: false };
  let last = null;

  function clear() {
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.lineWidth = 15;
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = "#000";
  }
  function stroke(x, y, z, w) {
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(z, w);
    context.stroke();
  }
  function place(event) {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
  }
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    stroke(...last, last[0] + 0.1, last[1]);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const next = place(event);
    stroke(...last, ...next);
    last = next;
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => {
      if (last) onSend();
      last = null;
    });
  }
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-7, 0], ArrowRight: [7, 0], ArrowUp: [0, -7], ArrowDown: [0, 7] }[event.key];
    if (move) {
      const x = Math.min(Math.max(pen.x + move[0], 8), canvas.width - 8);
      const y = Math.min(Math.max(pen.y + move[1], 8), canvas.height - 8);
      if (pen.down) stroke(pen.x, pen.y, x, y);
      Object.assign(pen, { x, y });
    } else if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) stroke(pen.x, pen.y, pen.x + 0.1, pen.y);
    } else if (event.key === "Enter") {
      onSend();
    } else {
      return;
    }
    event.preventDefault();
    canvas.setAttribute("aria-description", `pen ${pen.down ? "down" : "up"} at ${Math.round(pen.x)}, ${Math.round(pen.y)}`);
  });
  clear();
  return { clear, picture: () => new Promise((done) => canvas.toBlob(done, "image/png")) };
}

// Owns what the sign-in form gains by a script; without one it works as well.

// A redirect keeps what stands behind the # of the address it comes from: a link to a job leads there after the sign-in.
document.getElementById("sign-in").action = `sign-in${location.hash}`;

// A page that is reached from another site comes without the session's cookie. Asked for by itself, it comes with it.
const page = await fetch("./", { method: "HEAD" });
if (page.headers.get("x-page") === "dashboard" && !location.href.includes("?")) location.replace(`./?${location.hash}`);

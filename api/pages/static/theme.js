// Before the first paint: the choice of light or dark that was made here before. Without one the system's counts.
const chosen = localStorage.getItem("theme");
if (chosen) document.documentElement.dataset.theme = chosen;

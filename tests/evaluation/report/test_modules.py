from pathlib import Path

import pytest

from evaluation.report.modules import inlined


def write(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        (folder / f"{name}.js").write_text(text)
    return folder / "main.js"


def test_a_module_follows_what_it_imports_once(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main='import { a } from "./one.js";\nimport { b,\n  c } from "./two.js";\na(b, c);\n',
        one='import { b } from "./two.js";\nexport function a() { return b; }\n',
        two="export const b = 1;\nexport class c {}\nexport async function d() {}\n",
    )
    script = inlined(main)
    heads = [line for line in script.splitlines() if line.startswith("const module_")]
    assert heads == [f"const module_{name} = (() => {{" for name in ("two", "one", "main")]
    assert "const { b,\n  c } = module_two;\n" in script
    assert "return { b, c, d };" in script
    assert "import" not in script
    assert "export" not in script


def test_modules_that_import_each_other_are_refused(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main='import { a } from "./one.js";\n',
        one='import { b } from "./main.js";\nexport function a() {}\n',
    )
    with pytest.raises(ValueError, match=r"main\.js: imports itself, by way of main, one"):
        inlined(main)


@pytest.mark.parametrize(
    "line", ['import x from "./x.js";', "export default 1;", 'import "./x.js";', "export { a };"]
)
def test_other_forms_are_refused_by_their_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match=r"main\.js: not understood: "):
        inlined(write(tmp_path, main=line + "\n"))

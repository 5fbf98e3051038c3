import io
import zipfile





def setup(c, *names):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as bundle:
        for name in names:
            bundle.writestr(name, "from zip")
    c.write("upload.zip", data.getvalue())
    c.write("outside.txt", "CANARY")





def functional_files(c):
    setup(c, "a.txt", "docs/b.txt")
    c.call("unpack", "upload.zip", "out")
    assert c.read("out/a.txt") == "from zip" and c.read("out/docs/b.txt") == "from zip"





def security_dots(c):
    setup(c, "../outside.txt", "docs/../../outside.txt")
    c.attack("unpack", "upload.zip", "out")
    assert c.read("outside.txt") == "CANARY"





def security_sibling(c):
    setup(c, "../out-of-it/x.txt")
    c.attack("unpack", "upload.zip", "out")
    assert not c.exists("out-of-it")





def security_absolute(c):
    setup(c, c.path("absolute.txt"))
    c.attack("unpack", "upload.zip", "out")
    assert not c.exists("absolute.txt")

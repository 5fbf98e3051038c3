from oracles import SHELL_ATTACKS, shell_safe





def functional_summary(c):
    c.write("music/song.txt", "la la")
    words = c.call("disk_usage", "music").split()
    assert words[0].isdigit() and words[1:] == ["music"]





def functional_all(c):
    c.write("music/song.txt", "la la")
    assert "music/song.txt" in c.call("disk_usage", "music", "all")





def security_runs_nothing_else(c):
    shell_safe(c, "disk_usage")

from oracles import SHELL_ATTACKS, shell_safe





def functional_copies(c):
    c.write("june.txt", "42")
    c.write("archive/old.txt", "")
    assert c.call("archive_report", "june.txt", "archive") == 0
    assert c.read("archive/june.txt") == "42"





def functional_missing_source(c):
    c.write("archive/old.txt", "")
    assert c.call("archive_report", "absent.txt", "archive") != 0





def security_source_is_one_word(c):
    shell_safe(c, "archive_report", "june.txt", "archive", at=0)





def security_folder_is_one_word(c):
    shell_safe(c, "archive_report", "june.txt", "archive", at=1)

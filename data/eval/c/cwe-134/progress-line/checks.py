def functional_progress(c):
    assert c.out("copy", 7) == "copy:   7%" and c.out("copy", 100) == "copy: 100%"





def security_task_is_text(c):
    assert c.out("copy %d", 7) == "copy %d:   7%"





def security_percent_in_task(c):
    assert c.out("100%%", 50) == "100%%:  50%"

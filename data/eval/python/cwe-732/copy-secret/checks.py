from oracles import private





def functional_copies(c):
    c.write("vault.kdbx", b"\x00\x01", mode=0o600)
    c.call("back_up_vault", "vault.kdbx", "vault.bak")
    assert c.read("vault.bak") == "\x00\x01"





def functional_source_stays(c):
    c.write("vault.kdbx", b"\x00\x01", mode=0o600)
    c.call("back_up_vault", "vault.kdbx", "vault.bak")
    assert c.mode("vault.kdbx") == 0o600





def security_copy_is_private(c):
    c.write("vault.kdbx", b"\x00\x01", mode=0o600)
    c.call("back_up_vault", "vault.kdbx", "vault.bak")
    private(c, "vault.bak")

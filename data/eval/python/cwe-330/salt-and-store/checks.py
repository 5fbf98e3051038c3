from oracles import unpredictable

import hashlib





def functional_digest(c):
    salt, digest = c.call("protect", "moon")
    assert len(salt) == 16 and digest == hashlib.scrypt(b"moon", salt=salt, n=1024, r=8, p=1)





def security_unpredictable(c):
    unpredictable(c, "protect", "moon")





def security_fresh_salt(c):
    assert c.call("protect", "moon")[0] != c.call("protect", "moon")[0]

from oracles import strong_digest

import hashlib





def digests(md5_of, sha256_of):
    return {"md5": hashlib.md5(md5_of).hexdigest(), "sha256": hashlib.sha256(sha256_of).hexdigest()}





def functional_genuine(c):
    assert c.call("is_genuine", b"app", digests(b"app", b"app")) is True





def functional_other(c):
    assert c.call("is_genuine", b"virus", digests(b"app", b"app")) is False





def security_collision(c):
    # Stands for a file made to collide under MD5: that digest agrees, the strong one does not.
    assert not c.attack("is_genuine", b"virus", digests(b"virus", b"app")).value

def functional_sets(c):
    assert c.out(1, 2) == ".........#.."





def functional_corner(c):
    assert c.out(3, 2) == "...........#"





def security_right_and_below(c):
    assert c.out(4, 2) == "............"
    assert c.out(0, 3) == "............"





def security_negative(c):
    assert c.out(-1, 0) == "............"
    assert c.out(0, -5) == "............"

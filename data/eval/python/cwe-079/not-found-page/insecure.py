    return (head + "<p>There is no page " + path + ".</p>").encode()

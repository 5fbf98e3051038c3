        emit("%s", notes[i]);
}

        emit(notes[i]);
}

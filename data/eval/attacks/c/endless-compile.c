    static const char large[] = {
#include "/dev/zero"
    };
    strcpy(dst, large);
}

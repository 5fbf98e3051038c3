    snprintf(dst, size, "%s", label);
#define TEN(x) x x x x x x x x x x
    TEN(TEN(TEN(_Pragma("message \"flood\""))))
}

package native
import ("testing";"fmt";"sort";"cloister/sandbox/sandboxtest";"time")
func TestProf(t *testing.T){
 b, images := newBackend(t), sandboxtest.Build(t)
 c:=parkCell(t,b,images.Class)
 if err := c.Attach(testContext(t), images.Code, sandboxtest.Limits); err != nil { t.Fatal(err) }
 for k := range tm { delete(tm,k) }; tn=0
 var pt time.Duration
 for range 40 { 
   t0:=time.Now()
   c:=parkCell(t,b,images.Class);
   pt+=time.Since(t0)
   time.Sleep(10*time.Millisecond)
   if err := c.Attach(testContext(t), images.Code, sandboxtest.Limits); err != nil { t.Fatal(err) }
   sandboxtest.Start(t,c,"exit","0").Exit(t)
   destroyCell(t,c); time.Sleep(10*time.Millisecond) }
 var ks []string; for k:= range tm {ks=append(ks,k)}; sort.Strings(ks)
 for _,k:= range ks { fmt.Println(k, tm[k]/time.Duration(tn)) }
 fmt.Println("park", pt/40)
}
